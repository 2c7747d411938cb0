"""/run/fuservice/mounts: what we know of the mounts that we made, for ``fuservice list``. One file a mount, named by its unique id.

Only root's mounts are recorded. A record says what was, not what is: readers compare it with the kernel's own list, so a
record that outlives its mount (a crash, a plain umount(8)) is harmless.
"""

from __future__ import annotations

import os

from fuservice.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

DIRECTORY: Final = "/run/fuservice/mounts"
LARGEST: Final = 16_384  # bytes


def write(mount: int, facts: Mapping[str, str], directory: str = DIRECTORY) -> None:
    """Record *facts* (name → one line) about the mount that descriptor *mount* stands for. Failure is ignored: it is mounted."""
    text = b"".join(b"%b\t%b\n" % (name.encode(), _escape(os.fsencode(value))) for name, value in facts.items())
    try:
        for place in (os.path.dirname(directory), directory):  # noqa: PTH120
            try:
                os.mkdir(place, 0o755)  # noqa: PTH102 - not makedirs(): it gives the upper one what the umask leaves
            except FileExistsError:
                continue
        path = f"{directory}/{mountinfo.unique_id(mount)}"
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


def read(directory: str = DIRECTORY) -> dict[int, dict[str, str]]:
    """Return the records by unique mount id; files that are none are passed over."""
    records: dict[int, dict[str, str]] = {}
    try:
        names = os.listdir(directory)
    except OSError:
        return records
    for name in names:
        if name.isascii() and name.isdigit() and len(name) < 20:
            try:
                with open(f"{directory}/{name}", "rb") as file:  # noqa: PTH123
                    records[int(name)] = parse(file.read(LARGEST))
            except OSError:
                continue
    return records


def parse(text: bytes) -> dict[str, str]:
    """Return the facts in *text*, the content of one record; lines that are none are passed over."""
    facts: dict[str, str] = {}
    for line in text.split(b"\n"):
        name, tab, value = line.partition(b"\t")
        if tab:
            facts[os.fsdecode(name)] = os.fsdecode(mountinfo.unescape(value))
    return facts


def _escape(value: bytes) -> bytes:
    """Return *value* on one line, in the way of mountinfo: a backslash and control characters are \\NNN."""
    return b"".join(b"\\%03o" % byte if byte in b"\\\x7f" or byte < 0x20 else bytes((byte,)) for byte in value)


def remove(unique_id: int, directory: str = DIRECTORY) -> None:
    """Forget one mount; harmless where nothing is known of it, or where we may not."""
    try:
        os.unlink(f"{directory}/{unique_id}")  # noqa: PTH108
    except OSError:
        return
