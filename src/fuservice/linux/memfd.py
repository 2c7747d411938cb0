"""Sealed memory files: what is in them can no longer change (memfd_create(2), fcntl(2))."""

from __future__ import annotations

import errno
import fcntl
import os

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ALL_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, content: bytes) -> Fd:
    """Return a new memfd *name* that holds *content*, sealed for good, its offset 0. The caller owns it."""
    fd = Fd(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(fd.fileno(), content[written:], written)
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, ALL_SEALS)
    except BaseException:
        fd.close()
        raise
    return fd


def seals(fd: int) -> int | None:
    """Return the F_SEAL_ bits of *fd*; None where it is no memory file: reading it could wait for somebody."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None
