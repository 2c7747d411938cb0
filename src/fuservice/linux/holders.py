"""Which processes listen on a socket in the file tree: /proc/net/unix, and the descriptors of those that we may look into."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON, linux/net.h


def listeners(path: str) -> list[int]:
    """Return the processes that listen on the socket at *path*, by number; of our network namespace, and as far as we may know."""
    sockets = _listening(os.fsencode(path))
    found = []
    for name in os.listdir("/proc") if sockets else ():
        if name.isdigit() and sockets & _open_sockets(name):
            found.append(int(name))
    return sorted(found)


def _listening(path: bytes) -> set[str]:
    """Return the links that /proc/PID/fd shows for the sockets that listen at *path*."""
    with open("/proc/net/unix", "rb") as file:  # noqa: PTH123
        lines = [line.rstrip(b"\n").split(None, 7) for line in file]
    # Num: RefCount Protocol Flags Type St Inode Path, the first line says so.
    return {f"socket:[{int(words[6])}]" for words in lines[1:]
            if len(words) == 8 and int(words[3], 16) & _ACCEPTS and words[7] == path}  # fmt: skip


def _open_sockets(pid: str) -> set[str]:
    links = set()
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            links.add(os.readlink(f"/proc/{pid}/fd/{number}"))  # noqa: PTH115  # asks no filesystem
    except OSError:  # it ended meanwhile, or is not ours to look into
        return links
    return links
