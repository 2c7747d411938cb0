"""Block maps, the layout of ext2 and ext3: twelve direct pointers, then blocks of pointers, one to three levels deep.

A look-up goes down exactly as many levels as the logical block's number demands, whatever the pointers say, so a block of
pointers that points to itself costs nothing but wrong data, and a pointer outside the filesystem is EIO for the pointers
of its block, as with the kernel. Source: the kernel's Documentation/filesystems/ext4/blockmap.rst.
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct

from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.extents import ExtentNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.drivers.ext4.extents import Run
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.metadata import Metadata
    from fuservice.drivers.ext4.superblock import Superblock

DIRECT: Final = 12
_POINTERS: Final = Struct("<15I")  # i_block
_POINTER: Final = Struct("<I")


def most_blocks(superblock: Superblock) -> int:
    """Return the number of logical blocks that a map can reach (as the kernel limits them, to what 32 bits can count)."""
    each = superblock.block_size // 4
    return int(min(DIRECT + each + each**2 + each**3, 1 << 32))


def find_mapped(metadata: Metadata, inode: Inode, logical: int) -> Run:
    """Return the run around *logical*, within the block of pointers that is in charge of it."""
    pointers = _POINTERS.unpack(inode.blocks)
    if logical < DIRECT:
        return _run(_direct(metadata, inode, pointers[:DIRECT]), 0, logical)
    bits = metadata.superblock.shift - 2  # pointers per block, as a logarithm
    base, span = DIRECT, 1 << bits
    for level in (1, 2, 3):
        if logical < base + span:
            return _descend(metadata, inode, pointers[DIRECT + level - 1], level, base, logical)
        base, span = base + span, span << bits
    raise damaged(f"inode {inode.ino}: no block map reaches logical block {logical}")


def _descend(metadata: Metadata, inode: Inode, pointer: int, level: int, base: int, logical: int) -> Run:
    """Follow *pointer*, the head of *level* levels that map the logical blocks from *base*."""
    bits = metadata.superblock.shift - 2
    while True:
        if not pointer:
            return base, base + (1 << bits * level), 0
        if not metadata.superblock.holds(pointer, 1):
            raise damaged(f"inode {inode.ino}: block of pointers at block {pointer}")
        if level == 1:
            return _leaf(metadata, inode, pointer, base, logical)
        level -= 1
        index = logical - base >> bits * level
        base += index << bits * level
        (pointer,) = _POINTER.unpack_from(metadata.block(pointer), 4 * index)


def pointer_blocks(metadata: Metadata, inode: Inode, first: int, spend: Callable[[int], None]) -> int:
    """Return how many blocks of pointers a file has that lead to nothing before logical block *first*; EIO: damage.

    *spend* is told of the pointers in each block that is looked at, and raises where that is enough.
    """
    bits = metadata.superblock.shift - 2

    def below(pointer: int, level: int, base: int) -> tuple[int, bool]:
        """Return how many blocks there are from *pointer* down, and whether it is one of them."""
        spend(1 + (1 << bits >> 4))  # a pointer is a sixteenth of a step
        if not metadata.superblock.holds(pointer, 1):
            raise damaged(f"inode {inode.ino}: block of pointers at block {pointer}")
        count, span, used = 0, 1 << bits * (level - 1), False
        for at, (child,) in enumerate(_POINTER.iter_unpack(metadata.block(pointer))):
            if child:
                more, goes = below(child, level - 1, base + at * span) if level > 1 else (0, False)
                count += more
                used |= base + at * span < first and not goes
        goes = not used and base + (span << bits) > first  # one that lies before *first* as a whole stays as it is
        return count + goes, goes

    pointers, count, base = _POINTERS.unpack(inode.blocks), 0, DIRECT
    for level in (1, 2, 3):
        pointer = pointers[DIRECT + level - 1]
        count += below(pointer, level, base)[0] if pointer else 0
        base += 1 << bits * level
    return count


def _leaf(metadata: Metadata, inode: Inode, number: int, base: int, logical: int) -> Run:
    key = -(number + (1 << 33))  # not the block's own number: it could be an extent node of another file
    node = metadata.nodes.get(key)
    if node is None:
        pointers = Struct(f"<{metadata.superblock.block_size // 4}I").unpack(metadata.block(number))
        node = _parse(metadata.superblock, inode, pointers)
        metadata.nodes.put(key, node)
    return _run(node, base, logical)


def _direct(metadata: Metadata, inode: Inode, pointers: tuple[int, ...]) -> ExtentNode:
    node = metadata.nodes.get(-inode.ino)
    if node is None:
        node = _parse(metadata.superblock, inode, pointers)
        metadata.nodes.put(-inode.ino, node)
    return node


def _parse(superblock: Superblock, inode: Inode, pointers: tuple[int, ...]) -> ExtentNode:
    """Return the runs of consecutive pointers, without a gap: a hole is a run at block 0."""
    lowest = min((pointer for pointer in pointers if pointer), default=superblock.blocks_count)
    if max(pointers) >= superblock.blocks_count or lowest <= superblock.first_data_block:
        raise damaged(f"inode {inode.ino}: a block pointer leads outside the filesystem")
    starts, targets = [0], [pointers[0]]
    following = pointers[0] and pointers[0] + 1
    for at in range(1, len(pointers)):
        pointer = pointers[at]
        if pointer != following:
            starts.append(at)
            targets.append(pointer)
        following = pointer and pointer + 1
    return ExtentNode(0, starts, [*starts[1:], len(pointers)], targets)


def _run(node: ExtentNode, base: int, logical: int) -> Run:
    at = bisect_right(node.starts, logical - base) - 1
    return base + node.starts[at], base + node.ends[at], node.targets[at]
