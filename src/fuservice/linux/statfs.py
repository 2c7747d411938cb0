"""fstatfs(2): the type of the filesystem that a file lies on, which os.fstatvfs() leaves out."""

from __future__ import annotations

import ctypes

from fuservice.linux import libc

_fstatfs = libc.declare("fstatfs", ctypes.c_int, ctypes.c_void_p)


def filesystem_type(fd: int) -> int:
    """Return f_type (linux/magic.h) of the filesystem that *fd* lies on; an O_PATH descriptor will do."""
    buffer = (ctypes.c_ulong * 32)()  # struct statfs begins with f_type, a long; 256 bytes are room for all of it
    if _fstatfs(fd, buffer) < 0:
        libc.fail("fstatfs")
    return buffer[0]
