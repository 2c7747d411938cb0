"""The inode: one 128-byte (or longer) record of an inode table, checked and in the units that stat(2) uses.

Source: the kernel's Documentation/filesystems/ext4/inodes.rst. Quirks that the code follows:

* nanoseconds and the two further bits of a time are in the part behind byte 128, present only as far as ``i_extra_isize``
  reaches; 0 there means that nobody has used the space, and the kernel then reads it as if it reached over all fields;
* ``i_blocks`` has 48 bits and may count blocks instead of sectors, but only with the feature huge_file;
* the upper half of ``i_size`` counts for regular files (and with large_dir for all): elsewhere the field is another.
"""

from __future__ import annotations

import os
import stat
from struct import Struct

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.damage import damaged
from fuservice.fuse.filesystem import Attr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.superblock import Superblock
    from fuservice.fuse.filesystem import Entry

ENCRYPT_FL: Final = 0x800
INDEX_FL: Final = 0x1000
HUGE_FILE_FL: Final = 0x40000
EXTENTS_FL: Final = 0x80000
VERITY_FL: Final = 0x100000
EA_INODE_FL: Final = 0x200000
INLINE_DATA_FL: Final = 0x10000000
CASEFOLD_FL: Final = 0x40000000

XATTR_MAGIC: Final = 0xEA020000
OLD_SIZE: Final = 128  # bytes of an inode before it could be longer
_ALL_TIMES: Final = 24  # i_extra_isize that reaches over all times
_ALL_EXTRA: Final = 32  # i_extra_isize of all the fields known today
_KINDS: Final = frozenset(
    (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
)

_MAIN: Final = Struct("<HHIiiiIHHIII60sIII4xHHHH4x")
_EXTRA: Final = Struct("<H2xIIIiI")
_WORDS: Final = Struct("<II")


class Inode:
    """What the reader keeps of an inode.

    ``blocks`` is ``i_block``, 60 bytes that hold an extent tree, a block map, a link target or data. ``extra`` is how far
    the fields behind byte 128 reach, or -1 where an inode has no such part; ``attr`` is what stat shows. ``run`` remembers
    the run of blocks that was read last, ``entry`` the answer to a look-up.
    """

    __slots__ = (
        "attr",
        "blocks",
        "entry",
        "extra",
        "file_acl",
        "flags",
        "generation",
        "inline",
        "ino",
        "kind",
        "plain",
        "run",
        "size",
        "xattrs",
    )

    def __init__(
        self,
        *,
        ino: int,
        attr: Attr,
        flags: int,
        blocks: bytes,
        extra: int,
        file_acl: int,
        generation: int,
        xattrs: bool,
    ) -> None:
        self.ino, self.attr, self.flags, self.blocks = ino, attr, flags, blocks
        self.kind, self.size = stat.S_IFMT(attr.mode), attr.size
        self.extra, self.file_acl, self.generation = extra, file_acl, generation
        # The data are in the inode itself: what the flag says counts only where there is a place for them.
        self.inline = bool(flags & INLINE_DATA_FL) and xattrs
        # A file with blocks, readable.
        self.plain = self.kind == stat.S_IFREG and not self.inline and not flags & (ENCRYPT_FL | VERITY_FL)
        self.xattrs = xattrs  # the inode's own body has an area of extended attributes
        self.run: tuple[int, int, int] = (0, 0, 0)
        self.entry: Entry | None = None

    def has_blocks(self) -> None:
        """Take the data not to be in the inode, whatever the flag says."""
        self.inline = False
        self.plain = self.kind == stat.S_IFREG and not self.flags & (ENCRYPT_FL | VERITY_FL)


def parse_inode(superblock: Superblock, ino: int, raw: bytes, *, unlinked: bool = False) -> Inode:
    """Return inode *ino* from *raw*, its ``inode_size`` bytes; EIO where they cannot be an inode in use.

    *unlinked*: one to which no name leads any more will do.
    """
    (
        mode, uid, size, atime, ctime, mtime, _dtime, gid, links, sectors, flags, _osd1, blocks, generation, acl, size_high,
        sectors_high, acl_high, uid_high, gid_high,
    ) = _MAIN.unpack_from(raw)  # fmt: skip
    kind = stat.S_IFMT(mode)
    if not (links or unlinked) or kind not in _KINDS:
        raise damaged(f"inode {ino}: not in use, or of no known type (mode {mode:o}, {links} links)")
    if flags & CASEFOLD_FL and not superblock.incompat & features.CASEFOLD:
        raise damaged(f"inode {ino}: has the casefold flag, the filesystem has not the feature")
    if kind == stat.S_IFREG or superblock.incompat & features.LARGEDIR:
        size |= size_high << 32
        if size >> 63:
            raise damaged(f"inode {ino}: says it has {size} bytes")
    if superblock.uid32:
        uid, gid = uid | uid_high << 16, gid | gid_high << 16
    if superblock.incompat & features.BITS_64:
        acl |= acl_high << 32
    extra = _extra_size(superblock, ino, raw)
    ctime, mtime, atime, btime = _times(raw, extra, ctime, mtime, atime)
    attr = Attr(
        ino=ino, mode=mode, size=size, blocks=_sectors(superblock, flags, sectors, sectors_high), nlink=links, uid=uid, gid=gid,
        rdev=_device(blocks) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0, blksize=superblock.block_size,
        ctime_ns=ctime, mtime_ns=mtime, atime_ns=atime, btime_ns=btime,
    )  # fmt: skip
    return Inode(
        ino=ino, attr=attr, flags=flags, blocks=blocks, extra=extra, file_acl=acl, generation=generation,
        xattrs=_has_xattrs(raw, extra),
    )  # fmt: skip


def _extra_size(superblock: Superblock, ino: int, raw: bytes) -> int:
    """Return i_extra_isize as the kernel takes it: 32 where it is 0, -1 where the inode has no room for it."""
    room = superblock.inode_size - OLD_SIZE
    if not room:
        return -1
    extra = raw[OLD_SIZE] | raw[OLD_SIZE + 1] << 8
    if extra > room or extra & 3:
        raise damaged(f"inode {ino}: i_extra_isize is {extra}")
    return extra or _ALL_EXTRA


def _times(raw: bytes, extra: int, ctime: int, mtime: int, atime: int) -> tuple[int, int, int, int | None]:
    """Return ctime, mtime, atime, and the time of birth if there is one, in ns, from 32 signed bits of seconds.

    The extra part has 2 bits above them and 30 of ns.
    """
    if extra < _ALL_TIMES:
        more = _short_extra(raw, extra)
        birth = None if extra < 20 else _time(_EXTRA.unpack_from(raw, OLD_SIZE)[4], 0)
        return _time(ctime, more[0]), _time(mtime, more[1]), _time(atime, more[2]), birth
    _, ctime_more, mtime_more, atime_more, birth, birth_more = _EXTRA.unpack_from(raw, OLD_SIZE)
    return _time(ctime, ctime_more), _time(mtime, mtime_more), _time(atime, atime_more), _time(birth, birth_more)


def _short_extra(raw: bytes, extra: int) -> list[int]:
    """Return those of i_ctime_extra, i_mtime_extra, i_atime_extra that *extra* reaches over, 0 for the others."""
    ends = (8, 12, 16)  # bytes behind 128
    return [int.from_bytes(raw[OLD_SIZE + end - 4 : OLD_SIZE + end], "little") if extra >= end else 0 for end in ends]


def _time(seconds: int, more: int) -> int:
    return (seconds + ((more & 3) << 32)) * 1_000_000_000 + (more >> 2)


def _sectors(superblock: Superblock, flags: int, low: int, high: int) -> int:
    """Return i_blocks in units of 512 bytes."""
    if not superblock.ro_compat & features.HUGE_FILE:
        return low
    count = high << 32 | low
    return count << superblock.shift - 9 if flags & HUGE_FILE_FL else count


def _device(blocks: bytes) -> int:
    """Return the number of a device node: the old 8+8 bits in the first word of i_block, or the new 12+20 in the second."""
    old, new = _WORDS.unpack_from(blocks)
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev((new & 0xFFF00) >> 8, new & 0xFF | new >> 12 & 0xFFF00)


def _has_xattrs(raw: bytes, extra: int) -> bool:
    """Say whether an area of extended attributes follows the extra fields: its magic, with room for one entry."""
    start = OLD_SIZE + extra
    if extra < 0 or start + 8 > len(raw) or not raw[OLD_SIZE] | raw[OLD_SIZE + 1]:
        return False
    return int.from_bytes(raw[start : start + 4], "little") == XATTR_MAGIC
