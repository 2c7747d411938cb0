"""Where on the disk a file's data lie: what the kernel's FS_IOC_FIEMAP tells of its own mount.

FUSE has no such request (the kernel answers EOPNOTSUPP for every FUSE mount), so this is for programs that use the reader
without a mount. Source: the kernel's Documentation/filesystems/fiemap.rst.
"""

from __future__ import annotations

from fuservice.drivers.ext4.blockmap import find_mapped, most_blocks
from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.data import MOST_STEPS
from fuservice.drivers.ext4.extents import MOST_BLOCKS, find_allocated
from fuservice.drivers.ext4.inodes import EXTENTS_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, TypeAlias

    from fuservice.drivers.ext4.extents import Run
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.metadata import Metadata

    #: fe_logical, fe_physical, fe_length, all in bytes, and fe_flags.
    Extent: TypeAlias = tuple[int, int, int, int]

UNWRITTEN: Final = 0x800  # FIEMAP_EXTENT_UNWRITTEN; linux/fiemap.h


def allocated_runs(metadata: Metadata, inode: Inode) -> Iterator[Run]:
    """Yield the runs of *inode* that have blocks, in order, also behind its end; unwritten ones with a negative block.

    EIO where the map is damaged or has more than :data:`data.MOST_STEPS` runs.
    """
    extents = bool(inode.flags & EXTENTS_FL)
    find = find_allocated if extents else find_mapped
    below = MOST_BLOCKS if extents else most_blocks(metadata.superblock)
    logical = 0
    for _ in range(MOST_STEPS):
        if logical >= below:
            return
        run = find(metadata, inode, logical)
        if run[2]:
            yield run
        logical = run[1]
    raise damaged(f"inode {inode.ino}: more than {MOST_STEPS} runs of blocks")


def fiemap(metadata: Metadata, inode: Inode) -> Iterator[Extent]:
    """Yield the extents of a file or directory whose data are in blocks; neighbours that continue each other are one."""
    shift = metadata.superblock.shift
    first, behind, target = 0, 0, 0
    for start, end, block in allocated_runs(metadata, inode):
        if start == behind and target and block == _following(target, behind - first):
            behind = end
            continue
        if target:
            yield _extent(shift, first, behind, target)
        first, behind, target = start, end, block
    if target:
        yield _extent(shift, first, behind, target)


def _following(target: int, count: int) -> int:
    return target + count if target > 0 else target - count


def _extent(shift: int, first: int, behind: int, target: int) -> Extent:
    return first << shift, abs(target) << shift, behind - first << shift, 0 if target > 0 else UNWRITTEN
