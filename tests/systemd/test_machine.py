"""The machine itself: it is one, and nothing of it is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, cgroup2

pytestmark = pytest.mark.needs("systemd")


def traces() -> set[str]:
    """Return what a machine leaves if it leaves anything: control groups, directories, mounts."""
    hierarchy = cgroup2()
    assert hierarchy is not None
    found = {
        os.fspath(path) for path in [*hierarchy.glob("fuservice-machine-*"), *Path("/tmp").glob("fuservice-machine-*")]
    }
    return found | {
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "fuservice-machine" in line
    }


def test_it_boots_with_files_of_ours_and_leaves_nothing() -> None:
    before = traces()
    with Machine({"/etc/motd": "hello\n"}) as machine:
        assert machine.run("cat", "/etc/motd").stdout == "hello\n"
        assert machine.run("cat", "/proc/1/comm").stdout == "systemd\n"
        assert machine.run("systemctl", "is-system-running").stdout == "running\n"
        assert not machine.run("systemctl", "--failed", "--no-legend").stdout
        machine.run("touch", "/usr/written")
        assert not Path("/usr/written").exists()
        assert machine.run("sh", "-c", "echo 1 >/proc/sys/kernel/panic", check=False).returncode
        assert machine.power_off()
    assert traces() == before


def test_a_program_that_stays_does_not_outlive_it() -> None:
    before = traces()
    with Machine() as machine:
        machine.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
        stays = machine.run("pgrep", "-f", "sleep 1000").stdout.split()
        assert len(stays) == 1
    assert traces() == before
