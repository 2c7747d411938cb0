"""A server that was taken over, in a unit: it ends with its mount, wherever that is, and not before."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.prove.takenover import AT_READ, NAME
from tests.prove.test_taken_over import STUBBORN
from tests.systemd.conftest import server_pid, servers

if TYPE_CHECKING:
    from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")


def mount(machine: Machine, code: str, *, before: tuple[str, ...] = ()) -> str:
    """Mount an image that has *code* executed at a read; return the unit."""
    machine.run("mkdir", "-p", "/mnt/t")
    machine.run("tee", "/srv/code", text=f"{AT_READ}{code}")
    machine.run(*before, "fuservicemount", "/srv/code", "/mnt/t", "-t", NAME, "-o", "ro")
    (unit,) = servers(machine, NAME)
    return unit


@pytest.mark.parametrize("way", ["loops"])
def test_it_does_not_outlive_its_mount(taken_over: Machine, machine: Machine, way: str) -> None:
    unit = mount(machine, STUBBORN[way])
    words = machine.inside("cat", "/mnt/t/loot")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        time.sleep(0.5)  # for the attacker's code to run, which may be killed for how it begins
        machine.run("fuservice", "umount", "/mnt/t")
        reader.kill()
    assert machine.becomes(lambda: not servers(machine, NAME), 20)
    said = machine.journal("--unit", unit, "--output=cat")
    assert "did not end within 5 s of its mount" in said or "which its cage forbids" in said, said


def test_a_mount_that_another_namespace_has_is_a_mount(taken_over: Machine, machine: Machine) -> None:
    """It lives for as long as anybody has it: what systemd, or who has mounted it, can see does not count."""
    unit = mount(machine, "loot = b'served'")
    pid = server_pid(machine, unit)
    with subprocess.Popen(machine.inside("unshare", "-m", "sh", "-c", "read go; exec cat /mnt/t/loot"),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:  # fmt: skip
        assert machine.becomes(lambda: "unshare" not in machine.run("ps", "-eo", "args=", check=False).stdout)
        machine.run("umount", "/mnt/t")
        time.sleep(6)  # longer than a server without a mount has
        assert server_pid(machine, unit) == pid
        said, _ = elsewhere.communicate(b"\n", timeout=20)
        assert said.rstrip(b"\0") == b"served"
    assert machine.becomes(lambda: not servers(machine, NAME))


def test_a_mount_that_only_another_namespace_has(taken_over: Machine, machine: Machine) -> None:
    code = f"fuservicemount /srv/code /mnt/t -t {NAME} -o ro && cat /mnt/t/loot"
    machine.run("mkdir", "-p", "/mnt/t")
    machine.run("tee", "/srv/code", text=f"{AT_READ}loot = b'served'")
    assert machine.run("unshare", "-m", "sh", "-c", code).stdout.rstrip("\0") == "served"
    assert machine.becomes(lambda: not servers(machine, NAME))
