"""statx(2), for what os.stat() leaves out: which mount a file lies on."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from fuservice.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_DONT_SYNC: Final = 0x4000
STATX_MNT_ID_UNIQUE: Final = 0x4000  # linux/stat.h, Linux 6.8
STATX_SIZE: Final = 256  # struct statx
STATX_MASK: Final = struct.Struct("I")  # stx_mask, at offset 0
STATX_MNT_ID: Final = struct.Struct("144xQ")  # stx_mnt_id


_statx = libc.declare("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


def unique_id(fd: int, path: str = "") -> int:
    """Return the id, never used twice, of the mount that *fd* (with "") or *path* lies on. Asks no filesystem, so it cannot hang.

    OSError: ENOSYS before Linux 6.8.
    """
    buffer = ctypes.create_string_buffer(STATX_SIZE)
    flags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW | (0 if path else AT_EMPTY_PATH)
    if _statx(fd, os.fsencode(path), flags, STATX_MNT_ID_UNIQUE, buffer) < 0:
        libc.fail("statx", path)
    if not STATX_MASK.unpack_from(buffer)[0] & STATX_MNT_ID_UNIQUE:
        raise OSError(errno.ENOSYS, "this kernel has no unique mount ids", path)
    return int(STATX_MNT_ID.unpack_from(buffer)[0])


def mount_id(fd: int) -> int:
    """Return the id that mountinfo shows for the mount that *fd* lies on (proc_pid_fdinfo(5)); asks no filesystem."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
