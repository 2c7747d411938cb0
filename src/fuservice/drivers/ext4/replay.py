"""What -o recover shows in place of what is on the disk: inodes, names and counts, kept in memory and never written.

The journal's log is replayed block by block (:mod:`overlay`); fast commits (:mod:`fastcommit`) and orphans (:mod:`orphans`)
change single inodes and names. They change them here, and :class:`Volume` looks here first.
"""

from __future__ import annotations

from struct import Struct

from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.fiemap import allocated_runs
from fuservice.drivers.ext4.inodes import HUGE_FILE_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, TypeAlias

    from fuservice.drivers.ext4.extents import Run
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.volume import Volume

    #: Name as it is shown, and its inode (0: the name is gone).
    Change: TypeAlias = tuple[bytes, int]

_LINKS, _LINKS_AT = Struct("<H"), 26  # i_links_count
_SECTORS, _SECTORS_AT = Struct("<I"), 28  # i_blocks_lo
_FLAGS_AT: Final = 32
_SECTORS_HIGH, _SECTORS_HIGH_AT = Struct("<H"), 116  # l_i_blocks_high


#: Runs of blocks and nodes of trees that a replay looks at, at most: some seconds of work.
MOST_STEPS: Final = 1_000_000


class Replay:
    """Changes to *volume*: ``inodes`` are raw inodes by number, ``names`` changes by directory and by the name's key, ``deleted`` orphans.
    ``let_go`` counts how many of them shared an attribute block (negative) or an attribute's inode.

    ``freed_blocks`` and ``freed_inodes`` is what statfs counts more than the disk does, behind :meth:`count`; ``orphans`` were met.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._before: dict[int, tuple[bool, int]] = {}  # in use, sectors
        self.inodes: dict[int, bytes] = {}
        self.names: dict[int, dict[bytes, Change]] = {}
        self.deleted: set[int] = set()
        self.let_go: dict[int, int] = {}
        self.freed_blocks = self.freed_inodes = self.orphans = 0
        self._left = MOST_STEPS

    def spend(self, steps: int) -> None:
        """Note work; EIO where it is too much."""
        self._left -= steps
        if self._left < 0:
            raise damaged("there is more to be replayed than anybody could have written")

    def runs(self, inode: Inode) -> Iterator[Run]:
        """Yield the runs of *inode* that have blocks."""
        for run in allocated_runs(self._volume.metadata, inode):
            self.spend(1)
            yield run

    def touch(self, ino: int) -> bytes:
        """Return the raw inode, from now on kept here; EIO where there is none."""
        if ino not in self.inodes:
            raw = self._volume.raw_inode(ino)
            self._before[ino] = self._used(ino)
            self.inodes[ino] = raw
        return self.inodes[ino]

    def _used(self, ino: int) -> tuple[bool, int]:
        try:
            return True, self._volume.any_inode(ino).attr.blocks
        except OSError:
            return False, 0

    def rename(self, directory: Inode, name: bytes, ino: int) -> None:
        """Let *name* lead to inode *ino*, 0: nowhere."""
        self.names.setdefault(directory.ino, {})[self._volume.name_key(directory, name)] = name, ino

    def relink(self, ino: int, links: int) -> None:
        """Set the number of links."""
        raw = bytearray(self.touch(ino))
        _LINKS.pack_into(raw, _LINKS_AT, max(0, min(links, 65_535)))
        self.inodes[ino] = bytes(raw)

    def recount(self, ino: int, sectors: int) -> None:
        """Set the number of 512-byte units."""
        raw = bytearray(self.touch(ino))
        flags = _SECTORS.unpack_from(raw, _FLAGS_AT)[0]
        _SECTORS.pack_into(raw, _FLAGS_AT, flags & ~HUGE_FILE_FL)
        _SECTORS.pack_into(raw, _SECTORS_AT, sectors & 0xFFFFFFFF)
        _SECTORS_HIGH.pack_into(raw, _SECTORS_HIGH_AT, sectors >> 32 & 0xFFFF)
        self.inodes[ino] = bytes(raw)

    def count(self) -> None:
        """Count what became free, or used, since :meth:`touch`."""
        shift = self._volume.superblock.shift - 9
        for ino, (used, sectors) in self._before.items():
            now, left = self._used(ino)
            self.freed_inodes += used - now
            # Each by itself: a sector for inline data is no block.
            self.freed_blocks += (sectors >> shift) - (left >> shift)
