"""One user who connects and connects: the socket stays, and another user mounts."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.systemd.conftest import servers

if TYPE_CHECKING:
    from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

RATE, SECONDS = 300, 5
FLOOD = f"""
import socket, sys, time
began, kept = time.monotonic(), []
for count in range({RATE * SECONDS}):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect("/run/filesystems/ext4")
    if sys.argv[1] == "silent":
        kept.append(connection)
    else:
        connection.close()
    time.sleep(max(0, began + count / {RATE} - time.monotonic()))
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("manner", ["gone at once", "silent"])
def test_a_flood_neither_ends_the_socket_nor_keeps_others_out(machine: Machine, manner: str) -> None:
    machine.run("chmod", "0666", "/run/filesystems/ext4")
    machine.run("mkdir", "-p", "/mnt/a")
    as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    tries = 0

    def mounts() -> bool:
        nonlocal tries
        tries += 1
        ended = machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4", check=False, timeout=90)
        return ended.returncode == 0

    with subprocess.Popen(machine.inside(*as_other, "/usr/bin/python3", "-c", FLOOD, manner)) as flood:
        assert machine.becomes(lambda: len(servers(machine)) > 10)
        assert machine.becomes(mounts, 90)
        print(f"{manner}: mounted at try {tries}, {'during' if flood.poll() is None else 'after'} the flood")
        assert flood.wait(90) == 0
    assert machine.run("systemctl", "is-active", "fuservice-ext4.socket").stdout == "active\n"
    assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
    machine.run("umount", "/mnt/a")
    machine.run("chmod", "0220", "/run/filesystems/ext4")
    assert machine.becomes(lambda: not servers(machine), 60)
