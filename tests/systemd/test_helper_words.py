"""What the helper says of a server that did not serve: how it ended, and where its words are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.prove.takenover import NAME
from tests.support.capabilities import PROGRAMS
from tests.systemd.conftest import dropped_in, servers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

GOODBYE = "fuse server failed mount, check dmesg/logs for details: "
SILENT = "fuse server exited without saying goodbye: "


def refused(machine: Machine, source: str, name: str = "ext4", environment: Mapping[str, str] | None = None) -> str:
    """Try to mount *source*; return what the helper says, without its name and without the numbers in the unit's."""
    machine.run("mkdir", "-p", "/mnt/a")
    ended = machine.run(PROGRAMS / "fuservicemount", source, "/mnt/a", "-t", name, check=False, environment=environment)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended
    assert machine.becomes(lambda: not servers(machine))
    sentence = ended.stderr.strip().partition("fuservicemount: ")[2]
    if unit := re.search(r"journalctl --unit (\S+@\S+)$", sentence):
        assert machine.run("journalctl", "--quiet", "--unit", unit[1]).stdout, sentence
    return re.sub(r"@\d+-\d+-0\.service$", "@….service", sentence)


def see(name: str = "ext4") -> str:
    """Return where to read on."""
    return f", see journalctl --unit fuservice-{name}@….service"


def test_a_bad_image_is_told_in_the_words_of_the_server(machine: Machine) -> None:
    machine.run("sh", "-c", "head -c 65536 /dev/zero >/tmp/zeros")
    found = "no ext2, ext3 or ext4 filesystem: the magic number is 0x0000, not 0xef53"
    assert refused(machine, "/tmp/zeros") == f"{GOODBYE}{found}{see()}"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("open('/etc/shadow')", "killed: tried the system call openat, which its cage forbids"),
        ("os._exit(3)", "server ended with exit status 3"),
        ("os._exit(0)", "Deactivated successfully."),
        ("call('munmap', id(errno) & -4096, 1 << 20)", "server ended with signal 11"),
    ],
    ids=["forbidden call", "exit 3", "exit 0", "crash"],
)
def test_a_server_that_dies_in_the_conversation(taken_over: Machine, machine: Machine, code: str, how: str) -> None:
    machine.run("tee", "/srv/code", text=code)
    said = refused(machine, "/srv/code", NAME)
    print(said)
    assert said.startswith(SILENT + how) and said.endswith(see(NAME))


def test_a_server_that_cannot_be_started(machine: Machine) -> None:
    with dropped_in(machine, "ExecStart=\nExecStart=/nonexistent"):
        said = refused(machine, "/srv/image")
    assert said.endswith(f": Main process exited, code=exited, status=203/EXEC{see()}")


def test_a_server_that_finds_a_wall_missing(machine: Machine) -> None:
    with dropped_in(machine, "PrivateUsers=no"):
        said = refused(machine, "/srv/image")
    assert "systemd has not built what the unit says: the wall `user'" in said and said.endswith(see())


def test_a_connection_that_systemd_refuses(machine: Machine) -> None:
    with dropped_in(machine, "MaxConnections=1", unit="fuservice-ext4.socket", section="Socket"):
        machine.run("systemctl", "restart", "fuservice-ext4.socket")
        machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4")
        machine.run("mkdir", "-p", "/mnt/b")
        ended = machine.run("fuservicemount", "/srv/image", "/mnt/b", "-t", "ext4", check=False)
        machine.run("umount", "/mnt/a")
    machine.run("systemctl", "restart", "fuservice-ext4.socket")
    assert "Too many incoming connections (1), dropping connection." in ended.stderr
    assert ended.stderr.endswith(", see journalctl --unit fuservice-ext4.socket\n")


def test_mount_says_it_too(machine: Machine) -> None:
    machine.run("ln", "-sf", PROGRAMS / "mount.fuservice", "/usr/sbin/mount.fuservice")
    machine.run("sh", "-c", "head -c 65536 /dev/zero >/tmp/zeros; mkdir -p /mnt/a")
    ended = machine.run("mount", "-t", "fuservice.ext4", "/tmp/zeros", "/mnt/a", check=False)
    assert ended.returncode != 0 and "the magic number is 0x0000" in ended.stderr, ended
    assert machine.becomes(lambda: not servers(machine))


def test_where_there_is_no_systemd_nothing_is_added(machine: Machine) -> None:
    machine.run("sh", "-c", "head -c 65536 /dev/zero >/tmp/zeros")
    said = refused(machine, "/tmp/zeros", environment={"PATH": "/nonexistent"})
    assert said == GOODBYE.rstrip(": ") + "."
