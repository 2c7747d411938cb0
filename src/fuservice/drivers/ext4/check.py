"""Look at everything that can be reached, and tell what is unsound: what a mount would say object by object, all at once.

Metadata only: descriptors, inodes, maps, directories, attributes, link targets. Data have no checksums; they are not read.
Nothing is walked twice, and the walk ends when its time is over or it has seen so many objects, whatever the image says.
"""

from __future__ import annotations

import errno
import stat
import time
from functools import partial

from fuservice.drivers.ext4 import symlinks
from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.data import mapped_runs
from fuservice.drivers.ext4.inodes import VERITY_FL
from fuservice.drivers.ext4.volume import ROOT_INO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, TypeAlias

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.volume import Volume

    #: Path in the filesystem (b"": none), inode (0: none), and what is unsound there.
    Finding: TypeAlias = tuple[bytes, int, str]

MOST_OBJECTS: Final = 2_000_000
MOST_FINDINGS: Final = 50_000
MOST_HELD: Final = 256 << 20  # bytes of what is still to be looked at
LONGEST_PATH: Final = 4096  # bytes
_COST: Final = 150  # bytes of a path that is held, besides its own: measured, rounded up


class Check:
    """One walk through *volume*. ``objects`` counts the inodes that were looked at; ``whole`` says whether all of them were."""

    def __init__(self, volume: Volume, seconds: float) -> None:
        self.objects, self.whole = 0, True
        self._volume, self._deadline = volume, time.monotonic() + seconds
        self._seen: set[int] = {ROOT_INO}
        self._pending: list[tuple[bytes, int]] = [(b"/", ROOT_INO)]
        self._held = 0
        self._told: list[str] = []

    def findings(self) -> Iterator[Finding]:
        """Yield what is unsound. Blocks on the disk; ends soon after its time."""
        yield from self._descriptors()
        while self._pending and self._goes_on():
            path, ino = self._pending.pop()
            self._held -= len(path) + _COST
            for what in self._object(path, ino):
                self._told.append(what)
                yield path, ino, what
        for what in self._volume.complaints:  # the further ones of an object that has told its first
            if not any(told.startswith(what) for told in self._told):
                yield b"", 0, what

    def _goes_on(self) -> bool:
        if time.monotonic() <= self._deadline and len(self._told) < MOST_FINDINGS:
            return True
        self.whole = False
        return False

    def _descriptors(self) -> Iterator[Finding]:
        superblock, image = self._volume.superblock, self._volume.metadata.device.size
        groups = superblock.groups
        if superblock.size > image:
            group_bytes = superblock.blocks_per_group << superblock.shift
            groups = min(groups, -(-image // group_bytes))
            yield b"", 0, f"the image has {image} of {superblock.size} bytes, {groups} of {superblock.groups} groups"
        for group in range(groups):
            if not self._goes_on():
                return
            try:
                self._volume.check_group(group)
            except OSError as error:
                yield b"", 0, str(error.strerror)

    def _object(self, path: bytes, ino: int) -> Iterator[str]:
        """Look at one inode; yield what is unsound about it."""
        self.objects += 1
        try:
            inode = self._volume.inode(ino)
        except OSError as error:
            yield str(error.strerror)
            return
        for part in (self._attributes, partial(self._contents, path)):
            try:
                part(inode)
            except OSError as error:
                if error.errno == errno.EIO:  # not where a key is missing
                    yield str(error.strerror)

    def _contents(self, path: bytes, inode: Inode) -> None:
        if inode.kind == stat.S_IFDIR:
            self._directory(path, inode)
        elif inode.kind == stat.S_IFLNK:
            symlinks.target(self._volume, inode)
        elif inode.kind == stat.S_IFREG and not inode.inline:
            self._map(inode)
            if inode.flags & VERITY_FL:
                self._volume.verity(inode)

    def _attributes(self, inode: Inode) -> None:
        for name in self._volume.xattr_names(inode):
            self._volume.xattr(inode, name)

    def _map(self, inode: Inode) -> None:
        superblock = self._volume.superblock
        below = min(inode.size + superblock.block_size - 1 >> superblock.shift, 0xFFFFFFFF)
        end = self._volume.metadata.device.size >> superblock.shift
        for logical, behind, target in mapped_runs(self._volume.metadata, inode, 0, below):
            if target + behind - logical > end:
                raise damaged(f"inode {inode.ino}: logical block {logical} would be behind the end of the image")
            if not self._goes_on():
                return

    def _directory(self, path: bytes, inode: Inode) -> None:
        """Note the names of a directory; its damage is told behind the last of them."""
        position, more = 0, True
        while more and self._goes_on():
            more = False
            for behind, ino, _kind, name in self._volume.entries(inode, position):
                position, more = behind, True
                if name not in (b".", b"..") and ino not in self._seen:
                    self._add(path.rstrip(b"/") + b"/" + name, ino)

    def _add(self, path: bytes, ino: int) -> None:
        if len(self._seen) >= MOST_OBJECTS or self._held >= MOST_HELD or len(path) > LONGEST_PATH:
            self.whole = False
            return
        self._seen.add(ino)
        self._pending.append((path, ino))
        self._held += len(path) + _COST
