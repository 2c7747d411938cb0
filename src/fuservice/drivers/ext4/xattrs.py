"""Extended attributes: in the inode's own body behind its fields, in one block that inodes may share, or (large values) as
the data of an inode of their own.

An area with one bad entry is bad as a whole, as for the kernel: nothing says which of its entries is the honest one.
Names carry an index for their prefix; those that the kernel has no handler for (the data of inline files, encryption
contexts) are not shown. Source: the kernel's Documentation/filesystems/ext4/attributes.rst; limits from xattr(7).
"""

from __future__ import annotations

import errno
import os
from struct import Struct

from fuservice.drivers.ext4 import acl, features
from fuservice.drivers.ext4.checksums import Checksums
from fuservice.drivers.ext4.damage import damaged, wrong_checksum
from fuservice.drivers.ext4.inodes import OLD_SIZE, XATTR_MAGIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, TypeAlias

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.metadata import Metadata

    #: Name index, name without its prefix, value's offset, number of the inode that has the value (0: none), value's size.
    Slot: TypeAlias = tuple[int, bytes, int, int, int]

USER, ACL_ACCESS, ACL_DEFAULT, TRUSTED, SECURITY, SYSTEM = 1, 2, 3, 4, 6, 7
#: What the kernel shows: the prefix of each index, or the whole name.
PREFIXES: Final = {USER: b"user.", TRUSTED: b"trusted.", SECURITY: b"security."}
WHOLE_NAMES: Final = {ACL_ACCESS: b"system.posix_acl_access", ACL_DEFAULT: b"system.posix_acl_default"}
_INDEX: Final = {name: index for index, name in (PREFIXES | WHOLE_NAMES).items()}

LONGEST_VALUE: Final = 1 << 16  # XATTR_SIZE_MAX: no caller can ask for more
_LARGEST_STORED: Final = 1 << 24  # EXT4_XATTR_SIZE_MAX
_ENTRY: Final = Struct("<BBHIII")
_BLOCK_HEADER: Final = Struct("<III")  # h_magic, h_refcount, h_blocks
_BLOCK_START: Final = 32


class XattrArea:
    """The entries of one area and the bytes that their value offsets count from."""

    __slots__ = ("data", "slots")

    def __init__(self, data: bytes, slots: list[Slot]) -> None:
        self.data, self.slots = data, slots


def body_area(superblock_features: int, inode: Inode, raw: bytes) -> XattrArea:
    """Return the area in the inode's body *raw*; :attr:`Inode.xattrs` says that there is one."""
    data = raw[OLD_SIZE + inode.extra + 4 :]  # offsets count from behind the magic
    return XattrArea(data, _parse(superblock_features, inode, data, 0))


def block_area(metadata: Metadata, inode: Inode) -> XattrArea:
    """Return the area in the block that ``i_file_acl`` names."""
    if not metadata.superblock.holds(inode.file_acl, 1):
        raise damaged(f"inode {inode.ino}: attribute block {inode.file_acl} is outside the filesystem")
    data = metadata.sound_block(inode.file_acl, Checksums.attributes, inode)
    if data is None:
        raise wrong_checksum(f"inode {inode.ino}, attribute block {inode.file_acl}")
    magic, _references, blocks = _BLOCK_HEADER.unpack_from(data)
    if magic != XATTR_MAGIC or blocks != 1:
        raise damaged(f"inode {inode.ino}: block {inode.file_acl} is no attribute block")
    return XattrArea(data, _parse(metadata.superblock.incompat, inode, data, _BLOCK_START))


def references(metadata: Metadata, inode: Inode) -> int:
    """Return how many inodes have the block that ``i_file_acl`` names, as it says."""
    count: int = _BLOCK_HEADER.unpack_from(metadata.block(inode.file_acl))[1]
    return count


def _parse(superblock_features: int, inode: Inode, data: bytes, start: int) -> list[Slot]:
    """Return the entries from *start* on; names first, up to four zero bytes, values behind them."""
    slots: list[Slot] = []
    at = start
    while True:
        if at + 4 > len(data):
            raise damaged(f"inode {inode.ino}: attribute names without an end")
        if data[at : at + 4] == b"\0\0\0\0":
            break
        if at + 16 > len(data):
            raise damaged(f"inode {inode.ino}: an attribute's entry is cut")
        length, index, offset, ino, size, _hash = _ENTRY.unpack_from(data, at)
        name = data[at + 16 : at + 16 + length]
        if len(name) < length or b"\0" in name:
            raise damaged(f"inode {inode.ino}: bad attribute name")
        slots.append((index, name, offset, ino, size))
        at += 16 + (length + 3 & ~3)
    for slot in slots:
        _check_value(superblock_features, inode, slot, at + 4, len(data))
    return slots


def _check_value(superblock_features: int, inode: Inode, slot: Slot, first: int, end: int) -> None:
    _index, _name, offset, ino, size = slot
    if ino:
        if not superblock_features & features.EA_INODE or not 0 < size <= _LARGEST_STORED:
            raise damaged(f"inode {inode.ino}: an attribute of {size} bytes in inode {ino}")
    elif size and not (first <= offset and offset + (size + 3 & ~3) <= end):
        raise damaged(f"inode {inode.ino}: an attribute's value of {size} bytes at {offset}")


def shown_names(area: XattrArea) -> Iterator[bytes]:
    """Yield the full names that listxattr(2) shows."""
    for index, name, _offset, _ino, _size in area.slots:
        if index in PREFIXES:
            yield PREFIXES[index] + name
        elif index in WHOLE_NAMES:
            yield WHOLE_NAMES[index]


def split_name(name: bytes) -> tuple[int, bytes]:
    """Return index and stored name of the full *name*; EOPNOTSUPP for what the kernel's ext4 does not have."""
    prefix, dot, rest = name.partition(b".")
    index = _INDEX.get(prefix + dot)
    if index:
        return index, rest
    index = _INDEX.get(name)
    if not index:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return index, b""


def find_slot(area: XattrArea, index: int, name: bytes) -> Slot | None:
    """Return the entry of *name* under the prefix *index*, None where the area has none."""
    for slot in area.slots:
        if slot[1] == name and slot[0] == index:
            return slot
    return None


def stored_value(area: XattrArea, slot: Slot) -> bytes:
    """Return a value that lies in the area itself."""
    _index, _name, offset, _ino, size = slot
    return area.data[offset : offset + size] if size else b""


def shown_value(inode: Inode, index: int, value: bytes) -> bytes:
    """Return what getxattr(2) gives for a stored *value*: the same, except for ACLs."""
    return acl.from_disk(inode.ino, value) if index in WHOLE_NAMES else value
