"""Fast commits: what changed since the last full transaction, as a list of tags behind the journal's ring.

Each tag is one change (an inode, a range of its blocks, a name), not a block's contents. A commit ends in a tag with its
checksum; those that are whole are replayed in order, over what the log gives, as the kernel's fs/ext4/fast_commit.c does.
Numbers are little-endian. Source: the kernel's Documentation/filesystems/ext4/journal.rst, "Fast commits".

Nothing is written: :class:`Replay` keeps inodes, maps and names that the reader takes in place of those on the disk. Two
things are not as the kernel leaves them. It stamps directories and new links with the time of the replay; here they keep the
times that they have. And a name for which a directory has no room makes the kernel add a block, which is not counted here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from struct import Struct

from fuservice.drivers.ext4.crc32c import crc32c
from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.extents import MAGIC, MOST_BLOCKS, ExtentNode, tree_blocks
from fuservice.drivers.ext4.inodes import EXTENTS_FL, INLINE_DATA_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final, TypeAlias

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.replay import Replay
    from fuservice.drivers.ext4.volume import Volume

    #: fc_tag and what follows fc_len.
    FastTag: TypeAlias = tuple[int, bytes]

ADD_RANGE, DEL_RANGE, CREAT, LINK, UNLINK, INODE, PAD, TAIL, HEAD = range(1, 10)
_LEAST: Final = {ADD_RANGE: 16, DEL_RANGE: 12, CREAT: 9, LINK: 9, UNLINK: 9, INODE: 132, PAD: 0, TAIL: 8, HEAD: 8}
_TAG: Final = Struct("<HH")  # fc_tag, fc_len
_PAIR: Final = Struct("<II")
_ADD: Final = Struct("<IIHHI")  # fc_ino, and an extent: ee_block, ee_len, ee_start_hi, ee_start_lo
_DEL: Final = Struct("<III")  # fc_ino, fc_lblk, fc_len
_NUMBER: Final = Struct("<I")
_WRITTEN_MOST: Final = 32768
#: More than the area that mke2fs makes can hold.
MOST_TAGS: Final = 100_000

_BLOCKS_AT, _GENERATION_AT = 40, 100  # i_block, and what follows it
_FLAGS_AT: Final = 32
_EMPTY_TREE: Final = Struct("<HHHHI").pack(MAGIC, 0, 4, 0, 0)


def scan(blocks: Iterable[bytes], sequence: int) -> list[FastTag]:
    """Return the tags of all whole commits of transaction *sequence*; EIO where the kernel would refuse the journal."""
    whole = 0
    tags: list[FastTag] = []
    crc = 0
    for number, data in enumerate(blocks):
        if number == 0 and _TAG.unpack_from(data)[0] != HEAD:
            break
        at = 0
        while at + _TAG.size <= len(data):
            kind, length = _TAG.unpack_from(data, at)
            value = data[at + _TAG.size : at + _TAG.size + length]
            if len(value) < length or length < _LEAST.get(kind, 1 << 16):
                return _ended(tags, whole, "a tag that cannot be")
            if kind == HEAD and (_PAIR.unpack_from(value)[0] or _PAIR.unpack_from(value)[1] != sequence):
                if _PAIR.unpack_from(value)[0]:
                    raise damaged("its fast commits have unknown features")
                return tags[:whole]
            tags.append((kind, value))
            crc = crc32c(crc, data[at : at + _TAG.size + (4 if kind == TAIL else length)])
            if kind == TAIL:
                if _PAIR.unpack_from(value) != (sequence, crc):
                    return _ended(tags, whole, "a commit whose checksum is wrong")
                whole, crc = len(tags), 0
            if len(tags) > MOST_TAGS:
                raise damaged(f"more than {MOST_TAGS} fast commit tags")
            at += _TAG.size + length
    return tags[:whole]


def _ended(tags: list[FastTag], whole: int, why: str) -> list[FastTag]:
    """Return the whole commits; without any, the kernel takes the area for damaged."""
    if not whole:
        raise damaged(f"its fast commits begin with {why}")
    return tags[:whole]


class FastCommits:
    """Replays tags into *replay*, what will be shown of *volume*, on which the log has been replayed."""

    def __init__(self, volume: Volume, replay: Replay) -> None:
        self._volume, self._replay = volume, replay
        self._maps: dict[int, RangeMap] = {}

    def run(self, tags: Iterable[FastTag]) -> None:
        """Replay *tags*; EIO where the kernel would give up."""
        for kind, value in tags:
            if kind == INODE:
                self._inode(_NUMBER.unpack_from(value)[0], value[4:])
            elif kind == ADD_RANGE:
                self._add(value)
            elif kind == DEL_RANGE:
                self._delete(value)
            elif kind in (CREAT, LINK, UNLINK):
                parent, ino = _PAIR.unpack_from(value)
                self._name(kind, parent, ino, value[_PAIR.size :])
        for ino, ranges in self._maps.items():
            self._volume.metadata.remade[ino] = ranges.node(self._volume, ino)
        for ino in self._replay.inodes:
            self._count(ino)

    def _read(self, ino: int) -> Inode | None:
        """Return inode *ino* as it is by now; None where it is not in use, or the filesystem's own."""
        try:
            return self._volume.any_inode(ino)
        except OSError:
            return None

    def _inode(self, ino: int, new: bytes) -> None:
        """All of an inode but where its data are, which only other tags change."""
        raw = bytearray(self._replay.touch(ino))
        raw[:_BLOCKS_AT] = new[:_BLOCKS_AT]
        raw[_GENERATION_AT : len(new)] = new[_GENERATION_AT : len(raw)]
        flags = int.from_bytes(new[_FLAGS_AT : _FLAGS_AT + 4], "little")
        if flags & EXTENTS_FL:
            if int.from_bytes(raw[_BLOCKS_AT : _BLOCKS_AT + 2], "little") != MAGIC:
                raw[_BLOCKS_AT : _BLOCKS_AT + 12] = _EMPTY_TREE
        elif flags & INLINE_DATA_FL:
            raw[_BLOCKS_AT:_GENERATION_AT] = new[_BLOCKS_AT:_GENERATION_AT]
        self._replay.inodes[ino] = bytes(raw)
        if self._read(ino) is None:
            raise damaged(f"a fast commit makes inode {ino} one that cannot be")

    def _ranges(self, ino: int) -> RangeMap | None:
        inode = self._read(ino)
        if inode is None or not inode.flags & EXTENTS_FL:
            return None
        if ino not in self._maps:
            self._replay.touch(ino)
            self._maps[ino] = RangeMap(self._replay.runs(inode))
        self._replay.spend(1 + len(self._maps[ino]) // 1024)
        return self._maps[ino]

    def _add(self, value: bytes) -> None:
        ino, logical, length, high, low = _ADD.unpack_from(value)
        ranges = self._ranges(ino)
        count = length if length <= _WRITTEN_MOST else length - _WRITTEN_MOST
        block = high << 32 | low
        if ranges is not None and count:
            if logical + count > MOST_BLOCKS or not self._volume.superblock.holds(block, count):
                raise damaged(f"a fast commit puts inode {ino} at block {block}")
            ranges.put(logical, logical + count, block if length <= _WRITTEN_MOST else -block)

    def _delete(self, value: bytes) -> None:
        ino, logical, count = _DEL.unpack_from(value)
        ranges = self._ranges(ino)
        if ranges is not None and count:
            ranges.put(logical, min(logical + count, MOST_BLOCKS), 0)

    def _name(self, kind: int, parent: int, ino: int, name: bytes) -> None:
        """Add or remove a name, and count the inode's links: what is done already, or has no place, is left out."""
        inode, directory = self._read(ino), self._read(parent)
        if inode is None or directory is None:
            return
        try:
            known = self._volume.number_of(directory, name)
        except OSError:
            return
        links = inode.attr.nlink
        if kind == UNLINK:
            if not known:
                return
            if known == ino:
                self._replay.rename(directory, name, 0)
            links -= 1
        else:
            if not known:
                self._replay.rename(directory, name, ino)
                links += 1
            if kind == CREAT:
                links = 1
        self._replay.relink(ino, links)
        if links <= 0:  # the last name is gone, and with it all data
            self._maps[ino] = RangeMap(())
            self._volume.metadata.remade[ino] = ExtentNode(0, [], [], [])

    def _count(self, ino: int) -> None:
        """Count the blocks of an inode anew: the kernel's allocator can have made other decisions for the tree's own."""
        inode = self._read(ino)
        if inode is None or not inode.flags & EXTENTS_FL:
            return
        if ino in self._maps:
            blocks = self._maps[ino].blocks(self._volume.superblock.block_size // 12 - 1)
        else:
            data = sum(end - start for start, end, _block in self._replay.runs(inode))
            blocks = data + tree_blocks(self._volume.metadata, inode, 0, self._replay.spend)
        self._replay.recount(ino, blocks << self._volume.superblock.shift - 9)


class RangeMap:
    """Which blocks a file's logical blocks have: sorted ranges that do not overlap; a negative block is unwritten."""

    def __init__(self, runs: Iterable[tuple[int, int, int]]) -> None:
        self._runs = list(runs)

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._runs)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield the ranges: first logical block, the one behind the last, block."""
        return iter(self._runs)

    def put(self, start: int, end: int, block: int) -> None:
        """Let logical blocks *start* to *end* - 1 be at *block* and behind it; 0: nowhere."""
        runs = self._runs
        first = bisect_right(runs, start, key=_start)
        if first and runs[first - 1][1] > start:
            first -= 1
        last = bisect_left(runs, end, key=_start)
        new = []
        if first < last and runs[first][0] < start:
            new.append((runs[first][0], start, runs[first][2]))
        if block:
            new.append((start, end, block))
        if first < last and runs[last - 1][1] > end:
            begun, behind, target = runs[last - 1]
            new.append((end, behind, target + (end - begun if target > 0 else begun - end)))
        runs[first:last] = new

    def node(self, volume: Volume, ino: int) -> ExtentNode:
        """Return the map as one leaf, however long; EIO where it leaves the filesystem."""
        if not all(volume.superblock.holds(abs(block), end - start) for start, end, block in self._runs):
            raise damaged(f"a fast commit maps inode {ino} outside the filesystem")
        return ExtentNode(
            0, [run[0] for run in self._runs], [run[1] for run in self._runs], [run[2] for run in self._runs]
        )

    def blocks(self, per_node: int) -> int:
        """Return the number of blocks of data, and of a tree for them whose nodes have *per_node* entries, four in the root."""
        count, behind, following = 0, -1, 0
        for start, end, block in self._runs:
            count += not (start == behind and block == following)
            behind, following = end, block + (end - start if block > 0 else start - end)
        blocks = sum(end - start for start, end, _block in self._runs)
        while count > 4:
            count = -(-count // per_node)
            blocks += count
        return blocks


def _start(run: tuple[int, int, int]) -> int:
    return run[0]
