"""The superblock: what the filesystem says of itself, believed only as far as it is consistent.

Everything here is decided once, at opening: a :class:`Superblock` that exists has sane geometry (every other module
divides, shifts and multiplies by its fields without a second thought), and one that has not is an ImageError whose
sentence says which field is wrong. Source: the kernel's Documentation/filesystems/ext4/super.rst; the checks are those
that the kernel's own mount makes, because an image that the kernel serves should be served, and the reverse.
"""

from __future__ import annotations

from struct import Struct

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.crc32c import crc32c
from fuservice.drivers.ext4.damage import damaged
from fuservice.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.device import Device

POSITION: Final = 1024  # bytes from the start of the image, whatever the block size
LENGTH: Final = 1024
MAGIC: Final = 0xEF53

_COUNTS: Final = Struct("<11I")  # 0x00: s_inodes_count … s_inodes_per_group
_STATE: Final = Struct("<HH")  # 0x38: s_magic, s_state
_REVISION: Final = Struct("<II")  # 0x48: s_creator_os, s_rev_level
_DYNAMIC: Final = Struct("<IHHIII16s16s")  # 0x54: s_first_ino … s_volume_name
_JOURNAL: Final = Struct("<I4xI")  # 0xe0: s_journal_inum, s_last_orphan
_HASH: Final = Struct(
    "<16sBBHII"
)  # 0xec: s_hash_seed, s_def_hash_version, …, s_desc_size, mount options, s_first_meta_bg
_HIGH: Final = Struct("<III")  # 0x150: high halves of the block counts
_QUOTA: Final = Struct("<IIIII")  # 0x240: user and group quota inodes, s_overhead_clusters, s_backup_bgs
_PROJECT: Final = Struct("<I")  # 0x26c: s_prj_quota_inum
_ORPHANS: Final = Struct("<I")  # 0x280: s_orphan_file_inum
_RESERVED_GDT: Final = Struct("<H")  # 0xce
_FLAGS: Final = Struct("<I4xQ")  # 0x160: s_flags, …, s_mmp_block
_CHECKSUM_SEED: Final = Struct("<I")  # 0x270
_CHECKSUM: Final = Struct("<I")  # 0x3fc, over all before it
_CHECKSUM_AT: Final = 0x3FC
_CHECKSUM_TYPE_AT: Final = 0x175
_CRC32C: Final = 1  # s_checksum_type: the only one there is

NOT_CLEAN: Final = "not cleanly unmounted: showing it as it is on the disk"
NOT_REPLAYED: Final = f"{NOT_CLEAN} (its journal was not replayed: -o recover does that, in memory)"
_VALID_FS, _ERROR_FS = 1, 2
_OLD_INODE_SIZE, _OLD_FIRST_INODE = 128, 11
_NO_UID32: Final = 0x10  # s_default_mount_opts: owners have 16 bits


class Superblock:
    """The superblock's fields under their own names (without "s_"), 64-bit counts put together, and what follows from them.

    ``shift`` is the logarithm of ``block_size``; ``groups`` counts block groups; ``descriptors`` is the block behind this copy; ``warnings`` holds sentences for the user.
    """

    __slots__ = (
        "backup_bgs", "block_size", "blocks_count", "blocks_per_group", "checksum_seed", "cluster_ratio_bits", "clusters_per_group", "compat",
        "creator_os", "default_mount_opts", "desc_per_block", "desc_size", "descriptors", "first_data_block", "first_ino", "first_meta_bg", "flags", "free_blocks",
        "free_inodes", "groups", "hash_seed", "hash_version", "incompat", "inode_blocks_per_group", "inode_size", "inodes_count",
        "inodes_per_block", "inodes_per_group", "journal_inum", "label", "last_orphan", "log_block_size", "log_cluster_size", "mmp_block", "orphan_inum",
        "overhead_clusters", "quota_inums", "r_blocks_count", "reserved_gdt_blocks", "rev_level", "ro_compat", "shift", "state",
        "uuid", "warnings",
    )  # fmt: skip

    blocks_per_group: int
    clusters_per_group: int
    compat: int
    creator_os: int
    default_mount_opts: int
    desc_size: int
    first_data_block: int
    first_ino: int
    first_meta_bg: int
    flags: int
    free_inodes: int
    hash_seed: bytes
    hash_version: int
    incompat: int
    inode_size: int
    inodes_count: int
    inodes_per_group: int
    journal_inum: int
    last_orphan: int
    log_block_size: int
    log_cluster_size: int
    mmp_block: int
    orphan_inum: int
    overhead_clusters: int
    reserved_gdt_blocks: int
    rev_level: int
    ro_compat: int
    state: int
    uuid: bytes

    def __init__(self, data: bytes, *, check: bool = True) -> None:
        """Parse and check *data*, the 1024 bytes at :data:`POSITION`; ImageError where they are no sane superblock.

        *check*: believe no superblock whose checksum is wrong.
        """
        magic, self.state = _STATE.unpack_from(data, 0x38)
        if magic != MAGIC:
            raise ImageError(f"no ext2, ext3 or ext4 filesystem: the magic number is 0x{magic:04x}, not 0x{MAGIC:04x}")
        self.warnings: list[str] = []
        self._parse_counts(data)
        self._parse_dynamic(data)
        self._parse_late(data)
        self._parse_checksum(data, check=check)
        self._check_features()
        self._check_blocks()
        self._check_clusters()
        self._check_inodes()
        self._check_groups()
        self._check_state()

    def _parse_counts(self, data: bytes) -> None:
        (
            self.inodes_count, blocks, reserved, free, self.free_inodes, self.first_data_block, self.log_block_size,
            self.log_cluster_size, self.blocks_per_group, self.clusters_per_group, self.inodes_per_group,
        ) = _COUNTS.unpack_from(data, 0)  # fmt: skip
        # The kernel puts the halves together whether or not the feature 64bit is set.
        blocks_high, reserved_high, free_high = _HIGH.unpack_from(data, 0x150)
        self.blocks_count: int = blocks_high << 32 | blocks
        self.r_blocks_count: int = reserved_high << 32 | reserved
        self.free_blocks: int = free_high << 32 | free

    def _parse_dynamic(self, data: bytes) -> None:
        self.creator_os, self.rev_level = _REVISION.unpack_from(data, 0x48)
        (
            self.first_ino, self.inode_size, _group, self.compat, self.incompat, self.ro_compat, self.uuid, label,
        ) = _DYNAMIC.unpack_from(data, 0x54)  # fmt: skip
        self.label: bytes = label.rstrip(b"\0")
        if self.rev_level == 0:  # "good old": these two fields were not yet there
            self.inode_size, self.first_ino = _OLD_INODE_SIZE, _OLD_FIRST_INODE

    def _parse_late(self, data: bytes) -> None:
        self.journal_inum, self.last_orphan = _JOURNAL.unpack_from(data, 0xE0)
        (self.reserved_gdt_blocks,) = _RESERVED_GDT.unpack_from(data, 0xCE)
        (
            self.hash_seed, self.hash_version, _backup, self.desc_size, self.default_mount_opts, self.first_meta_bg,
        ) = _HASH.unpack_from(data, 0xEC)  # fmt: skip
        self.flags, self.mmp_block = _FLAGS.unpack_from(data, 0x160)
        user, group, self.overhead_clusters, first_backup, second_backup = _QUOTA.unpack_from(data, 0x240)
        (project,) = _PROJECT.unpack_from(data, 0x26C)
        (self.orphan_inum,) = _ORPHANS.unpack_from(data, 0x280)
        self.quota_inums: tuple[int, int, int] = (user, group, project)
        self.backup_bgs: tuple[int, int] = (first_backup, second_backup)
        if not self.incompat & features.BITS_64:
            self.desc_size = 32

    def _parse_checksum(self, data: bytes, *, check: bool) -> None:
        (seed,) = _CHECKSUM_SEED.unpack_from(data, 0x270)
        #: What the checksums of all other structures begin with.
        self.checksum_seed: int = seed if self.incompat & features.CSUM_SEED else crc32c(0xFFFFFFFF, self.uuid)
        if not check or not self.ro_compat & features.METADATA_CSUM:
            return
        if data[_CHECKSUM_TYPE_AT] != _CRC32C:
            raise ImageError(f"the filesystem's checksums are of an unknown kind, {data[_CHECKSUM_TYPE_AT]}")
        if _CHECKSUM.unpack_from(data, _CHECKSUM_AT)[0] != crc32c(0xFFFFFFFF, data[:_CHECKSUM_AT]):
            raise ImageError("the superblock is damaged: its checksum is wrong (-o nocheck serves what there is)")

    def _check_features(self) -> None:
        if self.incompat & features.JOURNAL_DEV:
            raise ImageError("this is the external journal of a filesystem (feature journal_dev), not a filesystem")
        names = features.unserved(self.incompat)
        if names:
            raise ImageError(f"the filesystem uses what this reader does not know: {', '.join(names)}")
        unknown = features.unknown_ro(self.ro_compat)
        if unknown:
            self.warnings.append(
                f"unknown ro_compat features {', '.join(unknown)}: harmless for reading, by their definition"
            )

    def _check_blocks(self) -> None:
        if self.log_block_size > 6:
            raise ImageError(f"block size 2^{10 + self.log_block_size} is none that ext4 knows (1 to 64 KiB)")
        self.shift: int = 10 + self.log_block_size
        self.block_size: int = 1 << self.shift
        self.descriptors: int = (POSITION >> self.shift) + 1
        if not self.first_data_block < self.blocks_count:
            raise ImageError(
                f"bad geometry: {self.blocks_count} blocks, of which the first with data would be {self.first_data_block}"
            )
        if self.reserved_gdt_blocks > self.block_size // 4:
            raise ImageError(f"bad geometry: {self.reserved_gdt_blocks} blocks reserved for group descriptors")

    def _check_clusters(self) -> None:
        """A cluster is a block, except with bigalloc."""
        most = self.block_size * 8  # one block of bitmap per group
        if self.ro_compat & features.BIGALLOC:
            if not self.log_block_size <= self.log_cluster_size <= 20:
                raise ImageError(f"bad geometry: clusters of 2^{10 + self.log_cluster_size} bytes")
            self.cluster_ratio_bits: int = self.log_cluster_size - self.log_block_size
            if self.blocks_per_group != self.clusters_per_group << self.cluster_ratio_bits:
                raise ImageError("bad geometry: clusters per group do not fit blocks per group")
            per_group = self.clusters_per_group
        else:
            if self.log_cluster_size != self.log_block_size:
                raise ImageError("bad geometry: fragment size is not block size, and bigalloc is not set")
            self.cluster_ratio_bits = 0
            per_group = self.blocks_per_group
        if not 0 < per_group <= most:
            raise ImageError(f"bad geometry: {per_group} blocks or clusters per group, at most {most} are possible")
        if not (self.first_data_block or self.log_block_size or self.cluster_ratio_bits):
            raise ImageError("bad geometry: block 0 cannot hold data where blocks have 1 KiB")

    def _check_inodes(self) -> None:
        size = self.inode_size
        if not _OLD_INODE_SIZE <= size <= self.block_size or size & (size - 1):
            raise ImageError(f"bad geometry: inodes of {size} bytes")
        if self.first_ino < _OLD_FIRST_INODE:
            raise ImageError(
                f"bad geometry: first ordinary inode {self.first_ino}, at least {_OLD_FIRST_INODE} is needed"
            )
        self.inodes_per_block: int = self.block_size // size
        if not self.inodes_per_block <= self.inodes_per_group <= self.block_size * 8:
            raise ImageError(f"bad geometry: {self.inodes_per_group} inodes per group")
        # As the kernel rounds: a remainder that fills no block has no place in the table.
        self.inode_blocks_per_group: int = self.inodes_per_group // self.inodes_per_block

    def _check_groups(self) -> None:
        size = self.desc_size
        if self.incompat & features.BITS_64 and (not 64 <= size <= 1024 or size & (size - 1)):
            raise ImageError(f"bad geometry: group descriptors of {size} bytes")
        self.desc_per_block: int = self.block_size // size
        self.groups: int = -(-(self.blocks_count - self.first_data_block) // self.blocks_per_group)
        if self.inodes_count != self.groups * self.inodes_per_group:
            raise ImageError(
                f"bad geometry: {self.inodes_count} inodes, but {self.groups} groups of {self.inodes_per_group}"
            )

    def _check_state(self) -> None:
        if self.incompat & features.RECOVER:
            self.warnings.append(NOT_REPLAYED)
        elif not self.state & _VALID_FS:
            self.warnings.append(NOT_CLEAN)
        if self.errors:
            self.warnings.append("the filesystem is marked as having errors")

    @property
    def size(self) -> int:
        """Bytes that the filesystem says it has."""
        return self.blocks_count << self.shift

    @property
    def errors(self) -> bool:
        """Say whether the kernel has met errors in the filesystem."""
        return bool(self.state & _ERROR_FS)

    @property
    def uid32(self) -> bool:
        """Say whether owners have 32 bits: always, but for a default mount option of old."""
        return not self.default_mount_opts & _NO_UID32

    def holds(self, first: int, count: int) -> bool:
        """Say whether *count* blocks from *first* can belong to a file: inside the filesystem, behind its first superblock."""
        return self.first_data_block < first and first + count <= self.blocks_count

    def is_hidden(self, ino: int) -> bool:
        """Say whether inode *ino* is one of the filesystem's own, which no name may lead to (the root is not)."""
        return (ino < self.first_ino and ino != 2) or ino in self.quota_inums or ino == self.orphan_inum


def read_superblock(device: Device, *, check: bool = True, position: int = POSITION) -> Superblock:
    """Read the superblock at byte *position*, and hold it against the image's size; ImageError where it is no sane one.

    *check*: its checksum must be right. A filesystem that is larger than its image has a warning.
    """
    if device.size < position + LENGTH:
        raise ImageError(f"the image has {device.size} bytes: too short for an ext2, ext3 or ext4 filesystem")
    try:
        superblock = Superblock(device.read(position, LENGTH), check=check)
    except OSError as error:
        raise ImageError(f"the superblock cannot be read: {error.strerror}") from error
    if superblock.size > device.size:  # the kernel refuses it; but who has only this image wants what is left of it
        superblock.warnings.append(
            f"image is cut short: the filesystem says {superblock.size} bytes, the image has {device.size}; what lies behind them is EIO"
        )
    superblock.descriptors = (position >> superblock.shift) + 1
    return superblock


def out_of_range(block: int) -> OSError:
    """Return the error for block number that no filesystem of this size has."""
    return damaged(f"block {block} is outside the filesystem")
