"""Extent trees: which run of blocks holds a file's logical block.

A node is a header and entries sorted by logical block; the root is the 60 bytes of ``i_block``, every other node fills a
block (the checksum behind the entries is beyond ``eh_max``). Source: the kernel's Documentation/filesystems/ext4/ifork.rst.

The tree is never walked as a whole. A look-up goes down one path, at most five nodes, each parsed once and cached; a node
must have exactly the depth its parent announces and begin where its parent says, so no arrangement of pointers makes a
look-up long, and no block can serve as two nodes of one tree.
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct

from fuservice.drivers.ext4.checksums import Checksums
from fuservice.drivers.ext4.damage import damaged, wrong_checksum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeAlias

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.metadata import Metadata
    from fuservice.drivers.ext4.superblock import Superblock

    #: Logical blocks from (included) and to (excluded), and the first physical block, 0 where the run reads as zeros.
    Run: TypeAlias = tuple[int, int, int]

MAGIC: Final = 0xF30A
MOST_DEPTH: Final = 5  # what a file of 2^32 blocks can need
#: No file has this logical block: the kernel's EXT_MAX_BLOCKS.
MOST_BLOCKS: Final = 0xFFFFFFFF
_WRITTEN_MOST: Final = 32768  # a longer ee_len means: allocated, never written, reads as zeros

_HEADER: Final = Struct("<HHHH4x")  # eh_magic, eh_entries, eh_max, eh_depth, eh_generation
_LEAF: Final = Struct("<IHHI")  # ee_block, ee_len, ee_start_hi, ee_start_lo
_INDEX: Final = Struct("<IIHxx")  # ei_block, ei_leaf_lo, ei_leaf_hi
_ENTRY: Final = 12


class ExtentNode:
    """One node, parsed: ``starts`` are the logical blocks of its entries, in order.

    Of a leaf (depth 0), ``ends`` are the logical blocks behind them and ``targets`` physical blocks (negative: unwritten);
    of an index node, ``targets`` are the children's blocks.
    """

    __slots__ = ("depth", "ends", "starts", "targets")

    def __init__(self, depth: int, starts: list[int], ends: list[int], targets: list[int]) -> None:
        self.depth, self.starts, self.ends, self.targets = depth, starts, ends, targets

    def __len__(self) -> int:
        """What it weighs in a cache: its entries, and two for itself."""
        return 2 + len(self.starts)


def parse_node(superblock: Superblock, data: bytes) -> ExtentNode:
    """Return the node in *data* (the whole of i_block, or a whole block); EIO where it breaks a rule of the format."""
    magic, count, most, depth = _HEADER.unpack_from(data)
    room = len(data) // _ENTRY - 1
    if magic != MAGIC or depth > MOST_DEPTH or not 0 < most <= room or count > most or (depth and not count):
        raise damaged(
            f"bad extent header: magic 0x{magic:04x}, depth {depth}, {count} entries of {most}, room for {room}"
        )
    entries = memoryview(data)[_ENTRY : _ENTRY * (count + 1)]
    return _parse_index(superblock, depth, entries) if depth else _parse_leaf(superblock, entries)


def _parse_leaf(superblock: Superblock, entries: memoryview) -> ExtentNode:
    starts, ends, targets = [], [], []
    end = 0
    for start, length, high, low in _LEAF.iter_unpack(entries):
        written = length <= _WRITTEN_MOST
        count = length if written else length - _WRITTEN_MOST
        target = high << 32 | low
        if start < end or not count or start + count > MOST_BLOCKS + 1 or not superblock.holds(target, count):
            raise damaged(f"bad extent: {count} blocks for logical block {start} at block {target}")
        end = start + count
        starts.append(start)
        ends.append(end)
        targets.append(target if written else -target)
    return ExtentNode(0, starts, ends, targets)


def _parse_index(superblock: Superblock, depth: int, entries: memoryview) -> ExtentNode:
    starts: list[int] = []
    targets: list[int] = []
    for start, low, high in _INDEX.iter_unpack(entries):
        target = high << 32 | low
        if (starts and start <= starts[-1]) or not superblock.holds(target, 1):
            raise damaged(f"bad extent index: logical block {start} at block {target}")
        starts.append(start)
        targets.append(target)
    return ExtentNode(depth, starts, [], targets)


def find_extent(metadata: Metadata, inode: Inode, logical: int) -> Run:
    """Return the run around *logical*, which is below :data:`MOST_BLOCKS`; a hole is a run that reads as zeros."""
    start, end, target = find_allocated(metadata, inode, logical)
    return start, end, max(target, 0)


def find_allocated(metadata: Metadata, inode: Inode, logical: int) -> Run:
    """Return the same, but of an unwritten run where it lies, as a negative number; 0 is a hole."""
    node = _root(metadata, inode)
    low, high = 0, MOST_BLOCKS
    while node.depth:
        at = bisect_right(node.starts, logical) - 1
        if at < 0:
            return low, node.starts[0], 0
        low = node.starts[at]
        if at + 1 < len(node.starts):
            high = node.starts[at + 1]
        node = _child(metadata, inode, node, at)
    return _run_in_leaf(node, logical, low, high)


def _run_in_leaf(node: ExtentNode, logical: int, low: int, high: int) -> Run:
    """Return the run of a leaf around *logical*; a hole ends at *low* and *high*, if not before."""
    at = bisect_right(node.starts, logical) - 1
    if at >= 0:
        low = node.ends[at]
        if logical < low:
            return node.starts[at], min(low, high), node.targets[at]
    if at + 1 < len(node.starts):
        high = min(high, node.starts[at + 1])
    return low, high, 0


def _root(metadata: Metadata, inode: Inode) -> ExtentNode:
    node = metadata.remade.get(inode.ino) or metadata.nodes.get(-inode.ino)  # negative: no block has that number
    if node is None:
        try:
            node = parse_node(metadata.superblock, inode.blocks)
        except OSError as error:
            raise damaged(f"inode {inode.ino}: {error.strerror}") from None
        metadata.nodes.put(-inode.ino, node)
    return node


def tree_blocks(metadata: Metadata, inode: Inode, first: int, spend: Callable[[int], None]) -> int:
    """Return how many blocks the tree itself has that map nothing before logical block *first*; EIO where it is damaged.

    *spend* is told of each block that is looked at, and raises where that is enough.
    """

    def below(parent: ExtentNode) -> int:
        count = 0
        for at in range(len(parent.starts) if parent.depth else 0):
            spend(1)
            node = _child(metadata, inode, parent, at)
            count += (not node.starts or node.starts[0] >= first) + below(node)
        return count

    return below(_root(metadata, inode))


def _child(metadata: Metadata, inode: Inode, parent: ExtentNode, at: int) -> ExtentNode:
    number = parent.targets[at]
    node = metadata.nodes.get(number)
    if node is None:
        data = metadata.sound_block(number, Checksums.extents, inode)
        if data is None:
            raise wrong_checksum(f"inode {inode.ino}, extent block {number}")
        try:
            node = parse_node(metadata.superblock, data)
        except OSError as error:
            raise damaged(f"inode {inode.ino}, extent block {number}: {error.strerror}") from None
        metadata.nodes.put(number, node)
    if node.depth != parent.depth - 1 or (node.starts and node.starts[0] != parent.starts[at]):
        raise damaged(f"inode {inode.ino}, extent block {number}: not the node that its parent describes")
    return node
