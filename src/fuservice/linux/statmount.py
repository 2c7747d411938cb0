"""statmount(2): one mount by its unique id, whatever hides it and in whatever mount namespace of ours it is."""

from __future__ import annotations

import ctypes
import os
import struct

from fuservice.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NR_STATMOUNT: Final = 457

# linux/mount.h: struct mnt_id_req, the masks, and the head of struct statmount (its strings follow at offset 512).
MNT_ID_REQ: Final = struct.Struct("IIQQ")  # size, mnt_ns_fd, mnt_id, param
STATMOUNT_SB_BASIC: Final = 0x01
STATMOUNT_MNT_BASIC: Final = 0x02
STATMOUNT_MNT_ROOT: Final = 0x08
STATMOUNT_MNT_POINT: Final = 0x10
STATMOUNT_FS_TYPE: Final = 0x20
STATMOUNT_HEAD: Final = struct.Struct("IIQIIQIIQQIIQQQQQIIQ")
STATMOUNT_STRINGS: Final = 512


def statmount(unique_id: int) -> tuple[str, str]:
    """Return filesystem type and mount point of the mount with this unique 64-bit id (statx's STX_MNT_ID_UNIQUE).

    OSError: ENOENT where there is none, ENOSYS before Linux 6.8.
    """
    answer = _ask(unique_id, STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC | STATMOUNT_MNT_POINT | STATMOUNT_FS_TYPE)
    head = STATMOUNT_HEAD.unpack_from(answer)
    fs_type, mount_point = head[7], head[18]
    return _string(answer, fs_type), _string(answer, mount_point)


def mount_id(unique_id: int) -> int:
    """Return the id that mountinfo shows for the mount with this unique id; OSError as statmount() has it."""
    return int(STATMOUNT_HEAD.unpack_from(_ask(unique_id, STATMOUNT_MNT_BASIC))[10])


def _ask(unique_id: int, mask: int) -> bytes:
    request = ctypes.create_string_buffer(MNT_ID_REQ.pack(MNT_ID_REQ.size, 0, unique_id, mask), MNT_ID_REQ.size)
    answer = ctypes.create_string_buffer(STATMOUNT_STRINGS + 2 * 4096 + 256)
    libc.syscall("statmount", NR_STATMOUNT, request, answer, len(answer), 0)
    return answer.raw


def _string(answer: bytes, offset: int) -> str:
    start = STATMOUNT_STRINGS + offset
    return os.fsdecode(answer[start : answer.index(b"\0", start)])
