"""Metadata checksums: where each structure has its own, and what it is taken over.

With the feature metadata_csum it is CRC-32C, begun with a number of the filesystem (its UUID, or ``s_checksum_seed``), so that
a block of another filesystem is not taken for one of this; what belongs to an inode also counts its number and generation.
Each method says whether the object is as it was written. Where it is not, the caller gives EIO for that one and serves the
rest. Source: the kernel's Documentation/filesystems/ext4/checksums.rst; which flaw counts as a mismatch, as its fs/ext4 does.
"""

from __future__ import annotations

from struct import Struct

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.crc16 import crc16
from fuservice.drivers.ext4.crc32c import crc32c
from fuservice.drivers.ext4.inodes import INDEX_FL, OLD_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.superblock import Superblock

_BLANK: Final = b"\0\0\0\0"
_NUMBER: Final = Struct("<I")
_LONG: Final = Struct("<Q")
_HALF: Final = Struct("<H")
_LIMITS: Final = Struct("<HH")  # limit, count of an index block
_OWNER: Final = Struct("<II")  # inode, i_generation

_EXTENT_MAX: Final = 4  # eh_max
_ATTRIBUTES_AT: Final = 0x10  # h_checksum
_GENERATION_AT: Final = 0x64
_LOW, _HIGH = 8 + 0x7C, 8 + 0x82  # l_i_checksum_lo and i_checksum_hi, behind the inode's number and generation
_DESCRIPTOR_AT: Final = 0x1E

_LEAF_TAIL: Final = b"\0\0\0\0\x0c\0\0\xde"  # an unused entry of 12 bytes and of this type; the checksum follows
_FIRST_LENGTH: Final = 4  # rec_len of a block's first entry
_INDEX_NODE, _INDEX_ROOT = 8, 32  # where an index block's limit and count are, and entries of 8 bytes begin
_DOT_LENGTH: Final = 12  # of "." in the root


class Checksums:
    """The checksums of a filesystem with the feature metadata_csum."""

    __slots__ = ("_superblock",)

    def __init__(self, superblock: Superblock) -> None:
        self._superblock = superblock

    def inode(self, ino: int, raw: bytes) -> bool:
        """*raw*: the inode's bytes in the table."""
        if self._superblock.creator_os:  # not Linux: the field is another
            return True
        high = len(raw) > OLD_SIZE and raw[OLD_SIZE] | raw[OLD_SIZE + 1] << 8 >= 4  # i_extra_isize reaches over it
        message = bytearray(_NUMBER.pack(ino) + raw[_GENERATION_AT : _GENERATION_AT + 4] + raw)
        stored = message[_LOW : _LOW + 2] + message[_HIGH : _HIGH + 2] if high else message[_LOW : _LOW + 2]
        message[_LOW : _LOW + 2] = b"\0\0"
        if high:
            message[_HIGH : _HIGH + 2] = b"\0\0"
        return _NUMBER.pack(crc32c(self._superblock.checksum_seed, message)).startswith(stored)

    def extents(self, inode: Inode, _number: int, data: bytes) -> bool:
        """A block with a node of the extent tree: the checksum follows ``eh_max`` entries."""
        most: int = _HALF.unpack_from(data, _EXTENT_MAX)[0]
        end = 12 * (most + 1)
        return end + 4 <= len(data) and self._owned(inode, data[:end]) == data[end : end + 4]

    def attributes(self, _inode: Inode, number: int, data: bytes) -> bool:
        """A block of extended attributes, which may have several owners, so it is its own number that counts."""
        behind = _ATTRIBUTES_AT + 4
        message = _LONG.pack(number) + data[:_ATTRIBUTES_AT] + _BLANK + data[behind:]
        return _NUMBER.pack(crc32c(self._superblock.checksum_seed, message)) == data[_ATTRIBUTES_AT:behind]

    def directory(self, inode: Inode, number: int, data: bytes) -> bool:
        """A block of a directory: of its index, if the inode and the block say so, else one with a tail."""
        if not inode.flags & INDEX_FL or not self._superblock.compat & features.DIR_INDEX:
            return self._leaf(inode, data)
        length: int = _HALF.unpack_from(data, _FIRST_LENGTH)[0]
        if length == len(data) or (len(data) == 1 << 16 and length in (0, 65535)):
            return self._index(inode, data, _INDEX_NODE)
        (rest,) = _HALF.unpack_from(data, _DOT_LENGTH + _FIRST_LENGTH)
        if length == _DOT_LENGTH and rest == len(data) - _DOT_LENGTH:
            return self._index(inode, data, _INDEX_ROOT)
        return self._leaf(inode, data)

    def _leaf(self, inode: Inode, data: bytes) -> bool:
        end = len(data) - len(_LEAF_TAIL) - 4
        return data[end:-4] == _LEAF_TAIL and self._owned(inode, data[:end]) == data[-4:]

    def _index(self, inode: Inode, data: bytes, start: int) -> bool:
        limit, count = _LIMITS.unpack_from(data, start)
        tail: int = start + 8 * limit
        if tail + 8 > len(data) or count > limit:
            return False
        message = data[: start + 8 * count] + data[tail : tail + 4] + _BLANK
        return self._owned(inode, message) == data[tail + 4 : tail + 8]

    def _owned(self, inode: Inode, data: bytes) -> bytes:
        """Return the checksum, as it is stored, of *data* that belong to *inode*."""
        owner = _OWNER.pack(inode.ino, inode.generation)
        return _NUMBER.pack(crc32c(self._superblock.checksum_seed, owner + data))


def descriptor_is_sound(superblock: Superblock, group: int, data: bytes) -> bool:
    """Say whether *data*, the descriptor of *group*, has the checksum it should have; true where none is kept."""
    stored: int = _HALF.unpack_from(data, _DESCRIPTOR_AT)[0]
    number, before, behind = _NUMBER.pack(group), data[:_DESCRIPTOR_AT], data[_DESCRIPTOR_AT + 2 :]
    if superblock.ro_compat & features.METADATA_CSUM:
        return crc32c(superblock.checksum_seed, number + before + b"\0\0" + behind) & 0xFFFF == stored
    if superblock.ro_compat & features.GDT_CSUM:
        return crc16(0xFFFF, superblock.uuid + number + before + behind) == stored
    return True
