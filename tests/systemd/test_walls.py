"""A server that finds less than its unit says does not start: systemd leaves out, without failing, what it cannot build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fuservice.units import inside
from tests.systemd.conftest import dropped_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

#: Wall → a drop-in without it. "privileges" is left standing by all other directives together.
WITHOUT = {
    "user": "PrivateUsers=no",
    "capabilities": "CapabilityBoundingSet=CAP_CHOWN",
    "net": "PrivateNetwork=no",
    "root": "RootDirectory=",
}


def test_each_wall_that_is_looked_for_is_tried() -> None:
    assert set(WITHOUT) | {"privileges"} == {one.wall for one in inside.FOUND}


@pytest.mark.parametrize("wall", WITHOUT)
def test_a_missing_wall_stops_the_start(machine: Machine, wall: str) -> None:
    machine.run("ip", "link", "set", "lo", "up")
    machine.run("ip", "route", "add", "192.0.2.0/24", "dev", "lo")  # a network, as far as one can tell
    with dropped_in(machine, WITHOUT[wall]):
        ended = machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4", check=False)
        machine.run("ip", "link", "set", "lo", "down")
        assert ended.returncode != 0
        assert f"systemd has not built what the unit says: the wall `{wall}'" in machine.journal("-t", "fuservice-ext4")


def test_a_server_whose_number_is_another_outside_starts(machine: Machine) -> None:
    """From 257 on servers are number 1 in a list of their own, and LISTEN_PID is what they are for systemd."""
    command = (
        machine.run("systemctl", "cat", "fuservice-ext4@.service").stdout.partition("ExecStart=")[2].splitlines()[0]
    )
    with dropped_in(machine, f"ExecStart=\nExecStart=/usr/bin/env LISTEN_PID=1 {command}"):
        machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4")
        machine.run("umount", "/mnt/a")


def test_with_all_walls_it_starts(mount: Callable[..., str], machine: Machine) -> None:
    machine.run("umount", mount())
