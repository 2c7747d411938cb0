"""What ioctl(2) tells of a file or directory: its flags, as lsattr(1) shows them, project, version, and fs-verity digest.

Of these the kernel's FUSE knows how many bytes go in and out, and passes them on; FS_IOC_READ_VERITY_METADATA, which writes to
where a pointer in its argument leads, cannot pass, and FS_IOC_FIEMAP the kernel refuses by itself. Numbers: linux/fs.h and
linux/fsverity.h. What the kernel's ext4 shows of the flags: EXT4_FL_USER_VISIBLE in its fs/ext4/ext4.h.
"""

from __future__ import annotations

import errno
import os
import stat
from struct import Struct

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.inodes import OLD_SIZE, VERITY_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.volume import Volume

GETFLAGS: Final = 0x80086601
GETVERSION, EXT4_GETVERSION = 0x80087601, 0x80086603
FSGETXATTR: Final = 0x801C581F
MEASURE_VERITY: Final = 0xC0046686

_VISIBLE: Final = 0x725BDFFF  # EXT4_FL_USER_VISIBLE
_PROJINHERIT_FL: Final = 0x20000000
_NUMBER: Final = Struct("<I")
_XATTR: Final = Struct("<IIIII8x")  # struct fsxattr: fsx_xflags, fsx_extsize, fsx_nextents, fsx_projid, fsx_cowextsize
#: FS_..._FL and the FS_XFLAG_... that means the same.
_XFLAGS: Final = (
    (0x8, 0x20), (0x10, 0x8), (0x20, 0x10), (0x40, 0x80), (0x80, 0x40), (0x02000000, 0x8000), (_PROJINHERIT_FL, 0x200)
)  # fmt: skip
_DIGEST: Final = Struct("<HH")  # struct fsverity_digest: digest_algorithm, digest_size; the digest follows
_PROJECT_END: Final = 32  # i_projid ends so far behind byte 128


def answer(volume: Volume, inode: Inode, command: int, data: bytes) -> bytes:
    """Return what *command* gives; ENOTTY where it is none of these."""
    if command == GETFLAGS:
        return _NUMBER.pack(_flags(inode))
    if command in (GETVERSION, EXT4_GETVERSION):
        return _NUMBER.pack(inode.generation)
    if command == FSGETXATTR:
        flags = _flags(inode)
        shown = sum(shown for flag, shown in _XFLAGS if flags & flag)
        return _XATTR.pack(shown, 0, 0, _project(volume, inode), 0)
    if command == MEASURE_VERITY:
        return _measure(volume, inode, data)
    raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))


def _flags(inode: Inode) -> int:
    shown = inode.flags & _VISIBLE
    return shown & ~_PROJINHERIT_FL if inode.kind == stat.S_IFREG else shown


def _project(volume: Volume, inode: Inode) -> int:
    """Return i_projid, where the filesystem has projects and the inode room for one."""
    if not volume.superblock.ro_compat & features.PROJECT or inode.extra < _PROJECT_END:
        return 0
    raw = volume.raw_inode(inode.ino)
    return int.from_bytes(raw[OLD_SIZE + _PROJECT_END - 4 : OLD_SIZE + _PROJECT_END], "little")


def _measure(volume: Volume, inode: Inode, data: bytes) -> bytes:
    """Return the digest of a file with fs-verity: ENODATA if it has none, EOVERFLOW if the caller has no room for it."""
    if not inode.flags & VERITY_FL:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
    verity = volume.verity(inode)
    if len(data) < _DIGEST.size or _DIGEST.unpack_from(data)[1] < len(verity.digest):
        raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
    return _DIGEST.pack(verity.algorithm, len(verity.digest)) + verity.digest
