"""The proof of a unit: systemd starts the probe as it starts a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")


def test_no_attempt_gets_out_of_a_unit(machine: Machine) -> None:
    done = machine.run("fuservice", "prove", "--unit", "fuservice-ext4@.service", "--json", timeout=110, check=False)
    assert done.stdout, done.stderr
    attempts = json.loads(done.stdout)["attempts"]
    escaped = {a["name"]: f"{a['outcome']} {a['detail']}" for a in attempts if not a["contained"]}
    outcomes = [a["outcome"] for a in attempts]
    print(len(attempts), {word: outcomes.count(word) for word in sorted(set(outcomes))})
    assert not escaped and done.returncode == 0
    assert {"killed", "refused", "bounded"} <= set(outcomes) and outcomes.count("absent") < 10
    left = machine.run(
        "find", "/run", "/tmp", "-maxdepth", "4", "-name", "fuservice-prove*", "-not", "-name", "*.8"
    ).stdout
    assert left == "" and "fuservice-prove" not in machine.run("systemctl", "list-units", "--all").stdout


def test_what_is_no_unit_of_ours_is_not_proven(machine: Machine) -> None:
    for unit, code in (("systemd-journald.service", 64), ("no-such@.service", 1)):
        done = machine.run("fuservice", "prove", "--unit", unit, check=False)
        assert done.returncode == code and done.stderr.count("\n") == 1
