"""Block groups: where their descriptors are, and what those say.

Descriptors are read when one is needed: a filesystem of 16 TiB has 131,072 of them, and a mount that reads them all is
slow to start. So a wild descriptor makes the objects of its group EIO, where the kernel would refuse the filesystem. One whose
checksum is wrong is noted and believed, as by the kernel in a read-only mount: the inodes it leads to have their own.
Source: the kernel's Documentation/filesystems/ext4/blockgroup.rst and group_descr.rst.
"""

from __future__ import annotations

from contextlib import suppress
from struct import Struct

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.checksums import descriptor_is_sound
from fuservice.drivers.ext4.damage import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.metadata import Metadata
    from fuservice.drivers.ext4.superblock import Superblock

_PLACES: Final = Struct("<III")  # bg_block_bitmap, bg_inode_bitmap, bg_inode_table: at 0x00; their high halves at 0x20
_FLAGS: Final = Struct("<H")  # 0x12
_INODE_UNINIT: Final = 1
_FREE_AT: Final = 0x0C  # bg_free_blocks_count_lo, bg_free_inodes_count_lo; their high halves are 0x20 further on
#: Beyond this many groups nobody adds up the descriptors: the superblock's own totals must do (128 TiB of 4 KiB blocks).
MOST_GROUPS_COUNTED: Final = 1 << 20


def has_super(superblock: Superblock, group: int) -> bool:
    """Say whether *group* begins with a copy of the superblock."""
    if group == 0:
        return True
    if superblock.compat & features.SPARSE_SUPER2:
        return group in superblock.backup_bgs
    if group == 1 or not superblock.ro_compat & features.SPARSE_SUPER:
        return True
    return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    power = base
    while power < number:
        power *= base
    return power == number


def super_groups(superblock: Superblock, below: int) -> int:
    """Return how many of the groups 0 to *below* - 1 hold a copy of the superblock, without looking at each."""
    if below <= 0:
        return 0
    if superblock.compat & features.SPARSE_SUPER2:
        return 1 + len({group for group in superblock.backup_bgs if 0 < group < below})
    if not superblock.ro_compat & features.SPARSE_SUPER:
        return below
    powers = {
        base**exponent for base in (3, 5, 7) for exponent in range(33)
    }  # group numbers have 32 bits; 1 is among them
    return 1 + sum(1 for group in powers if group < below)


class Groups:
    """The group descriptors of the filesystem behind *metadata*."""

    __slots__ = ("_metadata", "_tables")

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._tables: dict[int, int] = {}  # group: first block of its inode table; bounded by clearing

    def inode_table(self, group: int) -> int:
        """Return the first block of *group*'s inode table, all of which is inside the filesystem."""
        table = self._tables.get(group)
        if table is None:
            if len(self._tables) > 100_000:
                self._tables.clear()
            table = self._tables[group] = self._read_table(group)
        return table

    def _read_table(self, group: int) -> int:
        superblock = self._metadata.superblock
        _bitmap, _inode_bitmap, table = self.places(group)
        if self._metadata.checks and not descriptor_is_sound(superblock, group, self._descriptor(group)):
            block = descriptor_block(superblock, group // superblock.desc_per_block)
            self._metadata.note(f"group {group}, descriptor in block {block}: its checksum is wrong")
        end = table + superblock.inode_blocks_per_group
        if not superblock.first_data_block <= table < end <= superblock.blocks_count:
            raise damaged(f"group {group}: its inode table would be blocks {table} to {end}")
        return table

    def places(self, group: int) -> tuple[int, int, int]:
        """Return the blocks of *group*'s block bitmap and inode bitmap and the first of its inode table, as they are told."""
        superblock = self._metadata.superblock
        data = self._descriptor(group)
        blocks, inodes, table = _PLACES.unpack_from(data)
        if superblock.desc_size < 64:
            return blocks, inodes, table
        blocks_high, inodes_high, table_high = _PLACES.unpack_from(data, 0x20)
        return blocks_high << 32 | blocks, inodes_high << 32 | inodes, table_high << 32 | table

    def is_allocated(self, ino: int) -> bool:
        """Say whether the bitmap has inode *ino* as one in use."""
        group, index = divmod(ino - 1, self._metadata.superblock.inodes_per_group)
        if _FLAGS.unpack_from(self._descriptor(group), 0x12)[0] & _INODE_UNINIT:
            return False
        return bool(self._metadata.block(self.places(group)[1])[index >> 3] >> (index & 7) & 1)

    def _descriptor(self, group: int) -> bytes:
        superblock = self._metadata.superblock
        number, index = divmod(group, superblock.desc_per_block)
        at = index * superblock.desc_size
        return self._metadata.block(descriptor_block(superblock, number))[at : at + superblock.desc_size]

    def free_counts(self) -> tuple[int, int]:
        """Return the free clusters and free inodes of all groups, as their descriptors count them, or else the superblock."""
        superblock = self._metadata.superblock
        if superblock.groups <= MOST_GROUPS_COUNTED:
            with suppress(OSError):  # descriptors behind the end of an image that is cut short
                return self._counted()
        return superblock.free_blocks >> superblock.cluster_ratio_bits, superblock.free_inodes

    def _counted(self) -> tuple[int, int]:
        superblock = self._metadata.superblock
        clusters = inodes = 0
        for number in range(-(-superblock.groups // superblock.desc_per_block)):
            count = min(superblock.desc_per_block, superblock.groups - number * superblock.desc_per_block)
            data = self._metadata.block(descriptor_block(superblock, number))[: count * superblock.desc_size]
            clusters += _column(data, _FREE_AT, superblock.desc_size)
            inodes += _column(data, _FREE_AT + 2, superblock.desc_size)
        return clusters, inodes


def descriptor_block(superblock: Superblock, number: int) -> int:
    """Return the block that holds the *number*-th block's worth of group descriptors."""
    if not superblock.incompat & features.META_BG or number < superblock.first_meta_bg:
        return superblock.descriptors + number  # right behind the superblock, in group 0 or in that of the copy
    group = superblock.desc_per_block * number
    first = superblock.first_data_block + group * superblock.blocks_per_group
    behind = int(has_super(superblock, group))
    if number == 0 and superblock.block_size == 1024 and superblock.first_data_block == 0:
        behind += 1  # bigalloc with 1 KiB blocks: block 0 is the boot block, the superblock is block 1
    return first + behind


def _column(data: bytes, at: int, stride: int) -> int:
    """Return the sum of the 16-bit fields at *at* of every descriptor, with the high halves that 64-byte ones have."""
    total = _halves(data, at, stride)
    return total + (_halves(data, at + 0x20, stride) << 16) if stride >= 64 else total


def _halves(data: bytes, at: int, stride: int) -> int:
    return sum(data[at::stride]) + (sum(data[at + 1 :: stride]) << 8)
