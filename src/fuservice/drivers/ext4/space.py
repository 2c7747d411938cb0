"""What statfs(2) says: the counts that the kernel's ext4 shows for a filesystem mounted read-only with default options.

"bsddf", unless the caller wants "minixdf": blocks that hold the filesystem's own structures and the journal do not count as part of it.
Facts: statfs of the kernel's read-only mount, over images of every geometry (the tests compare).
"""

from __future__ import annotations

from contextlib import suppress

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.groups import has_super, super_groups
from fuservice.fuse.filesystem import StatFs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.groups import Groups
    from fuservice.drivers.ext4.superblock import Superblock

#: Clusters of structures that are looked at one by one, at most; more are estimated: nobody waits for statfs.
MOST_COUNTED: Final = 500_000


def statfs(
    superblock: Superblock,
    groups: Groups,
    journal_bytes: int,
    *,
    minixdf: bool = False,
    freed: tuple[int, int] = (0, 0),
) -> StatFs:
    """Return the answer to statfs; *journal_bytes* is the size of the internal journal (0: none).

    *minixdf*: all blocks count, as with the mount option of this name. *freed*: blocks and inodes that are free besides.
    """
    bits = superblock.cluster_ratio_bits
    clusters, inodes = groups.free_counts()
    free, inodes = (clusters << bits) + freed[0], inodes + freed[1]
    kept = superblock.r_blocks_count + (_reserved_clusters(superblock) << bits)
    overhead = 0 if minixdf else overhead_clusters(superblock, groups, journal_bytes) << bits
    return StatFs(
        blocks=max(0, superblock.blocks_count - overhead),
        bfree=free,
        bavail=max(0, free - kept),
        files=superblock.inodes_count,
        ffree=inodes,
        bsize=superblock.block_size,
        frsize=superblock.block_size,
        namelen=255,
    )


def _reserved_clusters(superblock: Superblock) -> int:
    """The kernel keeps 2 %, at most 4096 clusters, back for splitting extents."""
    if not superblock.incompat & features.EXTENTS:
        return 0
    return min((superblock.blocks_count >> superblock.cluster_ratio_bits) // 50, 4096)


def overhead_clusters(superblock: Superblock, groups: Groups, journal_bytes: int) -> int:
    """Return how many clusters hold the filesystem's own structures.

    With bigalloc the kernel takes the superblock's word where it gives one that can be true; else, and always without
    bigalloc, it counts.
    """
    bits = superblock.cluster_ratio_bits
    journal = -(-(journal_bytes >> superblock.shift) >> bits)
    before = superblock.first_data_block >> bits
    if not superblock.ro_compat & features.BIGALLOC:
        return before + structure_blocks(superblock) + journal
    if 0 < superblock.overhead_clusters <= superblock.blocks_count:
        return superblock.overhead_clusters
    descriptors = -(-superblock.groups // superblock.desc_per_block)
    if superblock.groups * (4 + (superblock.inode_blocks_per_group + descriptors >> bits)) <= MOST_COUNTED:
        with suppress(OSError):  # descriptors behind the end of an image that is cut short
            return before + len(_structure_clusters(superblock, groups)) + journal
    return before + (structure_blocks(superblock) >> bits) + journal


def _structure_clusters(superblock: Superblock, groups: Groups) -> set[int]:
    """Return the clusters that hold structures: with bigalloc, several of them may share one."""
    first, bits, length = superblock.first_data_block, superblock.cluster_ratio_bits, superblock.blocks_per_group
    clusters: set[int] = set()

    def add(start: int, count: int) -> None:
        if first <= start and start + count <= superblock.blocks_count:
            clusters.update(range(start - first >> bits, (start - first + count - 1 >> bits) + 1))

    for group in range(superblock.groups):
        blocks, inodes, table = groups.places(group)
        add(blocks, 1)
        add(inodes, 1)
        if (table - first) % length + superblock.inode_blocks_per_group <= length:  # not astride two groups
            add(table, superblock.inode_blocks_per_group)
        if has_super(superblock, group):
            add(first + group * length, 1 + -(-superblock.groups // superblock.desc_per_block))
    return clusters


def structure_blocks(superblock: Superblock) -> int:
    """Return the blocks of superblock copies, descriptors, bitmaps and inode tables in all groups."""
    groups, per_block = superblock.groups, superblock.desc_per_block
    copies = super_groups(superblock, groups)
    blocks = groups * (superblock.inode_blocks_per_group + 2) + copies * (1 + superblock.reserved_gdt_blocks)
    needed = -(-groups // per_block)  # blocks for all descriptors
    if not superblock.incompat & features.META_BG:
        return blocks + copies * needed
    plain = min(superblock.first_meta_bg, needed)  # these lie behind the superblock, as without meta_bg
    blocks += super_groups(superblock, min(groups, plain * per_block)) * superblock.first_meta_bg
    return blocks + _meta_copies(superblock, needed - plain)


def _meta_copies(superblock: Superblock, metas: int) -> int:
    """With meta_bg, descriptor blocks are in the first, second and last group of each set of groups they describe."""
    if metas <= 0:
        return 0
    last = superblock.groups % superblock.desc_per_block or superblock.desc_per_block  # groups in the last set
    full = 3 if superblock.desc_per_block > 2 else superblock.desc_per_block
    return (metas - 1) * full + (full if last == superblock.desc_per_block else min(last, 2))
