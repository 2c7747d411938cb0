"""Mounts as the kernel lists them, and how a test gets rid of its own.

The rule: a mount is detached (MNT_DETACH), and no tree is ever removed through a mount point.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import kernel

CONNECTIONS = Path("/sys/fs/fuse/connections")


class Mount(NamedTuple):
    """One line of mountinfo; see proc_pid_mountinfo(5)."""

    mount_id: int
    device: str
    point: str
    fstype: str
    source: str
    options: str
    super_options: str


def _plain(field: str) -> str:
    """Undo the kernel's escapes (\\040 for a blank, and so on)."""
    raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), os.fsencode(field))
    return os.fsdecode(raw)


def parse_mountinfo(text: str) -> list[Mount]:
    """Return the mounts that *text*, the content of a mountinfo file, lists."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mount_id, _, device, _, point, options, *_ = left.split(" ")
        fstype, source, super_options = right.split(" ", 2)
        mounts.append(Mount(int(mount_id), device, _plain(point), fstype, _plain(source), options, super_options))
    return mounts


def mounts(pid: int | str = "self") -> list[Mount]:
    """Return the mounts of the namespace that process *pid* lives in, oldest first."""
    raw = Path(f"/proc/{pid}/mountinfo").read_bytes()
    return parse_mountinfo(os.fsdecode(raw))


def mounts_at_or_below(directory: Path) -> list[Mount]:
    """Return the mounts of our namespace at *directory* or below it, oldest first."""
    top = os.fspath(directory)
    return [m for m in mounts() if m.point == top or m.point.startswith(top.rstrip("/") + "/")]


def mounted(point: Path) -> Mount | None:
    """Return the topmost mount on *point*, or None. Asks the kernel's list and never touches the filesystem."""
    return next((m for m in reversed(mounts()) if m.point == os.fspath(point)), None)


def detach_all(directory: Path) -> None:
    """Detach every mount at or below *directory*. Never blocks, whatever a FUSE server does."""
    while below := mounts_at_or_below(directory):
        kernel.umount2(below[-1].point, kernel.MNT_DETACH)


def abort_connections(those: list[Mount]) -> list[str]:
    """Abort the FUSE connections behind *those* mounts; return their names. Whoever waits in them gets ENOTCONN.

    The connection's number is the minor number of the mount's device, so only mounts that we can see in our own
    namespace are touched, never those of another program on the machine.
    """
    aborted = []
    for mount in those:
        if mount.fstype.split(".")[0] in {"fuse", "fuseblk"}:
            with contextlib.suppress(OSError):
                (CONNECTIONS / mount.device.split(":")[1] / "abort").write_text("1")
                aborted.append(f"{mount.fstype} on {mount.point}")
    return aborted


@contextlib.contextmanager
def loop_mounted(image: Path, at: Path, options: str = "ro,loop,noload", fstype: str = "ext4") -> Iterator[Path]:
    """Mount *image* on the directory *at* by the kernel's own driver, through a loop device that frees itself.

    ext2 and ext3 images are served by the kernel's ext4 too. The loop device has autoclear set by mount(8), so that it
    goes with the mount, even when the machine dies halfway.
    """
    subprocess.run(["mount", "-t", fstype, "-o", options, os.fspath(image), os.fspath(at)], check=True)
    try:
        yield at
    finally:
        kernel.umount2(os.fspath(at), kernel.MNT_DETACH)
