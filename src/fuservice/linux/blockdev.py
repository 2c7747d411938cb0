"""Block devices: their block size (blockdev(8), linux/fs.h), and loop devices over regular files (loop(4), linux/loop.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

BLKBSZGET: Final = 0x8008_1270  # _IOR(0x12, 112, size_t); the argument is an int all the same
BLKBSZSET: Final = 0x4008_1271  # _IOW(0x12, 113, size_t)
_INT: Final = struct.Struct("i")

LOOP_CONTROL: Final = "/dev/loop-control"
LOOP_CTL_GET_FREE: Final = 0x4C82
LOOP_CONFIGURE: Final = 0x4C0A  # Linux 5.8
LO_FLAGS_READ_ONLY: Final = 1
LO_FLAGS_AUTOCLEAR: Final = 4
#: struct loop_config: fd, block_size, then struct loop_info64 (lo_flags is its ninth field), then eight reserved words.
LOOP_CONFIG: Final = struct.Struct("II QQQQQ IIII 64s64s32s 2Q 8Q")
_TRIES: Final = 16  # another process may take the free device that we were told of


def block_size(fd: int) -> int:
    """Return the block size (bytes) of the block device *fd*."""
    size = fcntl.ioctl(fd, BLKBSZGET, _INT.pack(0))
    return int(_INT.unpack(size)[0])


def set_block_size(fd: int, size: int) -> None:
    """Set the block size (bytes) of the block device *fd*, for all who have it open, until the last one closes it."""
    fcntl.ioctl(fd, BLKBSZSET, _INT.pack(size))


def loop_device(file: int, *, read_only: bool) -> Fd:
    """Return an open loop device over the regular file *file*; it is gone when its last opener closes it. The caller owns it.

    OSError: EBUSY where every free device was taken before we could, or as open(2) and ioctl(2) have it.
    """
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else 0)
    config = LOOP_CONFIG.pack(file, 0, *[0] * 8, flags, b"", b"", b"", *[0] * 10)
    with Fd(os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)) as control:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control.fileno(), LOOP_CTL_GET_FREE)
            device = Fd(os.open(f"/dev/loop{number}", (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC))
            try:
                fcntl.ioctl(device.fileno(), LOOP_CONFIGURE, config)
            except OSError as error:
                device.close()
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device
    raise OSError(errno.EBUSY, "no free loop device", LOOP_CONTROL)
