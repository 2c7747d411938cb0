"""Our service in somebody else's unit, as libfuse's example has it: a hardened template that starts the program itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.capabilities import PROGRAMS, REPOSITORY
from tests.units import libfuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

SOCKET = """[Socket]
ListenSequentialPacket=/run/filesystems/theirs
Accept=yes
SocketMode=0220
RemoveOnStop=yes
"""
SERVICE = libfuse.unit(f"{PROGRAMS}/fuservice-ext4", f"BindReadOnlyPaths={REPOSITORY}\n")
UNITS = {"theirs.socket": SOCKET, "theirs@.service": SERVICE}


@pytest.fixture
def theirs(machine: Machine) -> Iterator[str]:
    """Give a type whose servers start in such a unit."""
    for name, text in UNITS.items():
        machine.run("tee", f"/etc/systemd/system/{name}", text=text)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "theirs.socket")
    yield "theirs"
    machine.run("systemctl", "stop", "theirs.socket")
    for name in UNITS:
        machine.run("rm", f"/etc/systemd/system/{name}")
    machine.run("systemctl", "daemon-reload")


def test_our_service_serves_from_a_unit_that_knows_nothing_of_ours(theirs: str, machine: Machine) -> None:
    machine.run("mkdir", "-p", "/mnt/a")
    machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", theirs)
    assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
    machine.run("umount", "/mnt/a")
