"""/run/fuservice/mounts: what we know of the mounts that we made, for ``fuservice list``. One file a mount, named by its unique id.

Only root's mounts are recorded. A record says what was, not what is: readers compare it with the kernel's own list, so a
record that outlives its mount (a crash, a plain umount(8)) is harmless.
"""

from __future__ import annotations

import os

from fuservice.linux import statx

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

DIRECTORY: Final = "/run/fuservice/mounts"


def write(mount: int, facts: Mapping[str, str], directory: str = DIRECTORY) -> None:
    """Record *facts* (name → one line) about the mount that descriptor *mount* stands for. Failure is ignored: it is mounted."""
    text = b"".join(b"%b\t%b\n" % (name.encode(), _escape(os.fsencode(value))) for name, value in facts.items())
    try:
        for place in (os.path.dirname(directory), directory):  # noqa: PTH120
            try:
                os.mkdir(place, 0o755)  # noqa: PTH102 - not makedirs(): it gives the upper one what the umask leaves
            except FileExistsError:
                continue
        path = f"{directory}/{statx.unique_id(mount)}"
        # Safe: /run is root's, and so is all below it; O_EXCL, so nothing that is there is written to.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError:
        return
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def namespace() -> str:
    """Return the name of the mount namespace that we are in: from another one, the kernel says that our mounts do not exist."""
    return str(os.stat("/proc/self/ns/mnt").st_ino)  # noqa: PTH116


def _escape(value: bytes) -> bytes:
    """Return *value* on one line, in the way of mountinfo: a backslash and control characters are \\NNN."""
    return b"".join(b"\\%03o" % byte if byte in b"\\\x7f" or byte < 0x20 else bytes((byte,)) for byte in value)
