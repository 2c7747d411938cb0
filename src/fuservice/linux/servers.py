"""Which process serves which FUSE mount: /proc/PID/fdinfo of an open fuse device names its connection, on new kernels."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_KEY: Final = b"fuse_connection:"


class Server:
    """A process that holds a fuse device."""

    __slots__ = ("name", "parent", "pid", "read_bytes", "uid")

    def __init__(self, pid: int) -> None:
        """Read what /proc says of *pid*: OSError where it is gone."""
        self.pid = pid
        self.uid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
        self.name, self.parent = "", 0
        with open(f"/proc/{pid}/status", "rb") as status:  # noqa: PTH123
            for line in status:
                if line.startswith(b"Name:"):
                    self.name = os.fsdecode(line[5:].strip())
                if line.startswith(b"PPid:"):
                    self.parent = int(line[5:])
                if line.startswith(b"Uid:"):
                    self.uid = int(line.split()[2])  # the effective one; /proc/PID is root's if it is not dumpable
        self.read_bytes: int | None = _read_bytes(pid)


def _read_bytes(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/io", "rb") as file:  # noqa: PTH123
            return int(file.readline().split()[1])  # rchar: bytes that read(2) and its kin returned
    except (OSError, ValueError, IndexError):
        return None


def connection_number(device: str) -> int:
    """Return the number of the connection behind a mount whose *device* ("7:1", "0:40") mountinfo shows: the kernel's dev_t."""
    major, _, minor = device.partition(":")
    return int(major) << 20 | int(minor)


def device_of(fd: int) -> str:
    """Return what mountinfo shows as device of the mount that our fuse device *fd* serves; "" where that is not known."""
    try:
        number = connection_of(fd)
    except OSError:
        return ""  # there is no /proc
    return f"{number >> 20}:{number & 0xF_FFFF}" if number else ""


def connection_of(fd: int) -> int | None:
    """Return the number of the connection that our fuse device *fd* serves, or served; None where it was never mounted.

    None too before Linux 6.16, which does not tell.
    """
    with open(f"/proc/self/fdinfo/{fd}", "rb") as info:  # noqa: PTH123
        return next((int(line.split()[1]) for line in info if line.startswith(_KEY)), None)


def servers() -> dict[int, Server]:
    """Return connection number → server, for all processes that we may look into."""
    found: dict[int, Server] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                for connection in _connections(name):
                    known, server = found.get(connection), Server(int(name))
                    # Whoever looks after a server has the device too: of a process and its parent it is the child who serves.
                    if known is None or known.pid == server.parent:
                        found[connection] = server
            except OSError:
                continue  # it ended meanwhile, or is not ours to look into
    return found


def _connections(pid: str) -> list[int]:
    connections: list[int] = []
    # Never stat(2) what /proc/PID/fd leads to: it may lie on a mount that hangs. fdinfo asks no filesystem.
    for number in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{number}", "rb") as info:  # noqa: PTH123
                connections += [int(line.split()[1]) for line in info if line.startswith(_KEY)]
        except OSError:
            continue
    return connections
