"""/dev/fuse: opening it, and knowing it when we see it."""

from __future__ import annotations

import errno
import os
import select
import stat

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEVICE: Final = "/dev/fuse"
FUSE_RDEV: Final = os.makedev(10, 229)  # MISC_MAJOR, FUSE_MINOR: linux/major.h, linux/miscdevice.h


def open_device(path: str = DEVICE) -> Fd:
    """Open the fuse device with the caller's rights. OSError names *path*; ENODEV where it is something else."""
    fd = Fd(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    if not is_fuse_device(fd.fileno()):
        fd.close()
        raise OSError(errno.ENODEV, "not the fuse device (character device 10:229)", path)
    return fd


def is_fuse_device(fd: int) -> bool:
    """Say whether *fd* is /dev/fuse, by type and number: the name proves nothing."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == FUSE_RDEV


def is_mounted(fd: int) -> bool:
    """Say whether the fuse device *fd* belongs to a mount that is alive: before and after, poll(2) on it is an error."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return all(not events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))
