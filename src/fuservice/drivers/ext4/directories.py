"""Directories: listing, and finding one name.

A directory is listed from front to back, hashed or not. Its blocks are those that its map really has: a hole is damage,
noted and skipped, and a directory has at most as many blocks as the filesystem.

A look-up has three ways. Directories of ordinary size are remembered as a dictionary of their names. In a large one with a
hash index the index leads to the block, until so many look-ups have cost as much as remembering it would have. In one too
large to be remembered, and without an index or with a damaged one, the bytes are searched for the name, and parsed only
where it occurs.

Encrypted names are shown, and found, as :mod:`nokey` tells; where case does not count, a name is found by what
:mod:`casefold` makes of it. Neither way goes by the index or by bytes.

Directories with damage are remembered: their sound entries are served, but a name that is not among them is EIO, not
ENOENT, and so is the end of the listing, because what was lost is not known.
"""

from __future__ import annotations

import errno
import os
import stat

from fuservice.drivers.ext4 import features, nokey
from fuservice.drivers.ext4.caches import Generations
from fuservice.drivers.ext4.casefold import fold
from fuservice.drivers.ext4.checksums import Checksums
from fuservice.drivers.ext4.damage import damaged, wrong_checksum
from fuservice.drivers.ext4.data import find, mapped_runs
from fuservice.drivers.ext4.dirblocks import DirFormat, find_name, parse_block
from fuservice.drivers.ext4.htree import leaves
from fuservice.drivers.ext4.inodes import CASEFOLD_FL, ENCRYPT_FL, INDEX_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Final

    from fuservice.drivers.ext4.dirblocks import DirBlock, Name
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.volume import Volume

#: What one look-up in a large directory may cost: bytes searched, blocks parsed. Each is a second or two of work.
MOST_SEARCHED: Final = 1 << 31
MOST_PARSED: Final = 30_000
#: What one request may spend on blocks and entries without a name, in entries; a block weighs as much as four.
MOST_EMPTY: Final = 4_000_000
#: What a remembered name costs besides its bytes, as Python objects, in bytes: measured, rounded up.
NAME_COST: Final = 128
_CHUNK: Final = 1 << 18  # bytes of one read, at most
#: A directory of fewer blocks is remembered at once: a dictionary answers faster than an index.
_FEW_BLOCKS: Final = 32
_ADDED: Final = 1 << 61  # positions behind those of all entries
_INLINE_FIRST: Final = 60  # bytes of an inline directory in i_block; the parent's number is the first four
_NO_BLOCK: Final = -1
_MOST_DAMAGED: Final = 10_000
_MOST_COUNTED: Final = 10_000  # directories whose look-ups are counted
#: Stands in the cache for the names of a directory that has too many.
_TOO_MANY: Final[dict[bytes, int]] = {}


def _weight(names: dict[bytes, int]) -> int:
    return 256 + len(names) * NAME_COST + sum(map(len, names))


class Directories:
    """The directories of *volume*; keeps at most about *cache_bytes* of names."""

    __slots__ = ("_damaged", "_form", "_limit", "_names", "_searches", "_unindexed", "_volume", "changes")

    def __init__(self, volume: Volume, cache_bytes: int) -> None:
        superblock = volume.superblock
        filetype = bool(superblock.incompat & features.FILETYPE)
        self._form = DirFormat(superblock.inodes_count, filetype=filetype, block_size=superblock.block_size)
        self._volume = volume
        self.changes: dict[int, dict[bytes, tuple[bytes, int]]] = {}  # see replay.py
        self._limit = cache_bytes // 2  # of each generation, so of each directory
        self._names: Generations[int | tuple[int, int], dict[bytes, int]] = Generations(self._limit, _weight)
        self._damaged: dict[int, str] = {}
        self._searches: dict[int, int] = {}  # inode: look-ups by its index so far
        self._unindexed: set[int] = set()  # inodes whose index is damaged

    def find(self, inode: Inode, name: bytes) -> int:
        """Return the inode number that *name* has in directory *inode*; ENOENT, or EIO where that cannot be known."""
        names = self._names.get(inode.ino)
        if names and name in names and not self.changes:
            return names[name]
        key = self.key(inode, name)
        changed = self.changes[inode.ino].get(key) if inode.ino in self.changes else None
        ino = changed[1] if changed else self._number(inode, key)
        if ino:
            return ino
        if len(name) > 255:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if inode.ino in self._damaged:
            raise damaged(f"{self._damaged[inode.ino]}: whether the directory had that name is not known")
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def key(self, inode: Inode, name: bytes) -> bytes:
        """Return what all names have in common that count as *name* in directory *inode*."""
        folds = inode.flags & (CASEFOLD_FL | ENCRYPT_FL) == CASEFOLD_FL
        return fold(name) if folds else name

    def _number(self, inode: Inode, name: bytes) -> int:
        """Return the inode number that *name* has, 0 where it is not found; *name* is as :meth:`_found` makes it."""
        names = self._names.get(inode.ino)
        if names is None:
            if self._searches_index(inode):
                return self._by_index(inode, name)
            names = self._remember(inode)
        if names is not _TOO_MANY:
            return names.get(name, 0)
        return self._by_index(inode, name) if self._is_indexed(inode) else self._search(inode, name)

    def _is_indexed(self, inode: Inode) -> bool:
        """Say whether the directory has a hash index, as far as is known a good one."""
        indexed = inode.flags & INDEX_FL and self._volume.superblock.compat & features.DIR_INDEX and not inode.inline
        plain = not inode.flags & (CASEFOLD_FL | ENCRYPT_FL)
        return bool(indexed) and plain and inode.ino not in self._unindexed

    def _shown(self, inode: Inode) -> Callable[[bytes], bytes]:
        """Return what makes of the stored names of an encrypted directory those that are shown."""
        superblock = self._volume.superblock
        indexed = bool(inode.flags & INDEX_FL)
        if not superblock.compat & features.DIR_INDEX or inode.inline or inode.flags & CASEFOLD_FL:
            return nokey.directory_names(superblock, b"", indexed=False, hashed=False)
        hashed = inode.size >> superblock.shift == 1
        root = self._block(inode, 0) if indexed else b""
        return nokey.directory_names(superblock, root, indexed=indexed, hashed=hashed)

    def _found(self, inode: Inode, names: Iterable[Name]) -> Iterable[Name]:
        """Return the entries *names* with the names that they are found by in *inode*, not those that are stored."""
        if inode.flags & ENCRYPT_FL:
            return self._decoded(inode, names)
        if inode.flags & CASEFOLD_FL:
            return ((behind, ino, kind, fold(name)) for behind, ino, kind, name in names)
        return names

    def _decoded(self, inode: Inode, names: Iterable[Name]) -> Iterator[Name]:
        """Yield the entries *names* of an encrypted directory with the names that are shown."""
        show = self._shown(inode)
        for behind, ino, kind, stored in names:
            try:
                name = show(stored)
            except OSError as error:
                self._complain(inode, str(error.strerror))
                continue
            yield behind, ino, kind, name

    def _searches_index(self, inode: Inode) -> bool:
        """Say whether the next look-up should go by the index: until they have parsed as many blocks as there are."""
        blocks = inode.size >> self._volume.superblock.shift
        if blocks < _FEW_BLOCKS or not self._is_indexed(inode):
            return False
        searches = self._searches.get(inode.ino, 0)
        if len(self._searches) > _MOST_COUNTED:
            self._searches.clear()
        self._searches[inode.ino] = searches + 1
        return searches < blocks

    def _by_index(self, inode: Inode, name: bytes) -> int:
        """Look *name* up by the hash index; without it where that is damaged."""
        try:
            logicals = leaves(lambda logical: self._block(inode, logical), self._volume.superblock, name)
            found = [self._leaf(inode, logical) for logical in logicals]
        except OSError as error:
            self._volume.metadata.complain(f"directory {inode.ino} is searched without its index: {error.strerror}")
            if len(self._unindexed) < _MOST_DAMAGED:
                self._unindexed.add(inode.ino)
            return self._search(inode, name)
        return next((names[name] for names in found if name in names), 0)

    def _leaf(self, inode: Inode, logical: int) -> dict[bytes, int]:
        """Return the names of one block; it is remembered, as what is looked up next is often its neighbour."""
        names = self._names.get((inode.ino, logical))
        if names is None:
            data = self._block(inode, logical)
            entries = self._parse(inode, data, 0, len(data), logical).names
            names = {name: ino for _behind, ino, _kind, name in reversed(entries)}  # the first one counts
            self._names.put((inode.ino, logical), names)
        return names

    def _block(self, inode: Inode, logical: int) -> bytes:
        """Return logical block *logical*, which the index names; EIO where the directory has none there."""
        metadata = self._volume.metadata
        if logical << metadata.superblock.shift >= inode.size:
            raise damaged(f"directory {inode.ino}: its index names block {logical}, behind its end")
        start, _end, target = find(metadata, inode, logical)
        if not target:
            raise damaged(f"directory {inode.ino}: its index names block {logical}, a hole")
        data = self._sound(inode, logical, target + logical - start)
        if data is None:
            raise wrong_checksum(f"directory {inode.ino}, block {logical}")
        return data

    def _sound(self, inode: Inode, logical: int, number: int) -> bytes | None:
        """Return logical block *logical*, the filesystem's *number*; None, and damage is noted, where its checksum is wrong."""
        data = self._volume.metadata.sound_block(number, Checksums.directory, inode)
        if data is None:
            self._complain(inode, f"block {logical}: its checksum is wrong")
        return data

    def _is_sound(self, inode: Inode, logical: int, data: bytes) -> bool:
        """Say the same of a block that was read with others."""
        checksums = self._volume.metadata.checksums
        if checksums is None or checksums.directory(inode, 0, data):
            return True
        self._complain(inode, f"block {logical}: its checksum is wrong")
        return False

    def entries(self, inode: Inode, position: int) -> Iterator[Name]:
        """Yield the entries behind *position* (0: all); each begins with the position that resumes behind it."""
        none = True
        names: Iterable[Name] = self._inline(inode) if inode.inline else self._listed(inode, position)
        if inode.flags & ENCRYPT_FL:
            names = self._decoded(inode, names)
        if inode.ino in self.changes:
            names = self._changed(inode, names)
        for entry in names:
            if entry[0] > position:
                none = False
                yield entry
        # The error must not be mixed with entries that the caller could lose because of it: it is an answer of its own.
        if none and inode.ino in self._damaged:
            raise damaged(f"{self._damaged[inode.ino]}: entries may be missing")

    def _changed(self, inode: Inode, names: Iterable[Name]) -> Iterator[Name]:
        """Yield the entries *names* without those that are gone, and those that have come behind them."""
        changes = self.changes[inode.ino]
        for entry in names:
            if self.key(inode, entry[3]) not in changes:
                yield entry
        for at, (name, ino) in enumerate(changes.values()):
            if ino:
                yield _ADDED + at, ino, 0, name

    def _listed(self, inode: Inode, position: int) -> Iterator[Name]:
        size = self._volume.superblock.block_size
        empty = 0
        for logical, data in self._blocks(inode, position // size, 1):
            found = self._parse(inode, data, 0, len(data), logical)
            base = logical * size
            for behind, ino, kind, name in found.names:
                yield base + behind, ino, kind, name
            empty += 4 + found.unused
            if empty > MOST_EMPTY:
                raise damaged(f"directory {inode.ino} is too large to be listed, and empty")

    def _parse(self, inode: Inode, data: bytes, start: int, end: int, logical: int) -> DirBlock:
        encrypted = bool(inode.flags & ENCRYPT_FL)
        found = parse_block(self._form, data, start, end, dots=logical == 0, encrypted=encrypted)
        if found.fault:
            place = f"block {logical}" if logical >= 0 else "in the inode"
            self._complain(inode, f"{place}: {found.fault}")
        return found

    def _complain(self, inode: Inode, what: str) -> None:
        """Note damage: for the volume, and as the reason that this directory gives from now on."""
        sentence = f"directory {inode.ino}, {what}"
        self._volume.metadata.complain(sentence)
        if len(self._damaged) < _MOST_DAMAGED:
            self._damaged.setdefault(inode.ino, sentence)

    def _blocks(self, inode: Inode, first: int, at_once: int) -> Iterator[tuple[int, bytes]]:
        """Yield up to *at_once* consecutive blocks at a time, from logical block *first*: the first's number, the bytes."""
        metadata, superblock = self._volume.metadata, self._volume.superblock
        below = inode.size + superblock.block_size - 1 >> superblock.shift
        if inode.size & superblock.block_size - 1:  # the kernel leaves out the names behind it, without a word
            self._complain(inode, f"its size of {inode.size} bytes is no number of blocks")
        if below > superblock.blocks_count:
            self._complain(inode, f"it would have {below} blocks, more than the filesystem")
            below = superblock.blocks_count
        following = first
        for start, end, target in mapped_runs(metadata, inode, first, below):
            if start != following:
                self._complain(inode, f"block {following}: a hole")
            following = end
            for logical in range(start, end, at_once):
                count, block = min(at_once, end - logical), target + logical - start
                if count == 1:
                    one = self._sound(inode, logical, block)
                    if one is not None:
                        yield logical, one
                else:
                    yield logical, metadata.device.read(block << superblock.shift, count << superblock.shift)
        if following < below:
            self._complain(inode, f"block {following}: a hole")

    def _inline(self, inode: Inode) -> Iterator[Name]:
        """Two separate chains of entries, behind the parent's number and in the continuation; no "." and ".."."""
        rest = self._volume.continuation(inode)
        yield 1, inode.ino, stat.S_IFDIR, b"."
        yield 2, int.from_bytes(inode.blocks[:4], "little"), stat.S_IFDIR, b".."
        yield from self._parse(inode, inode.blocks, 4, _INLINE_FIRST, _NO_BLOCK).names
        for behind, ino, kind, name in self._parse(inode, rest, 0, len(rest), _NO_BLOCK).names:
            yield _INLINE_FIRST + behind, ino, kind, name

    def _remember(self, inode: Inode) -> dict[bytes, int]:
        """Return the names of a directory (or the mark that they are too many), from now on in the cache."""
        if inode.inline:
            names = {name: ino for _behind, ino, _kind, name in self._found(inode, self._inline(inode))}
        elif inode.size > 4 * self._limit:  # four times: it may be almost empty
            names = _TOO_MANY
        else:
            names = self._collect(inode)
        if names is not _TOO_MANY:
            names.pop(b".", None)
            names.pop(b"..", None)
            if _weight(names) > self._limit:
                names = _TOO_MANY
        self._names.put(inode.ino, names)
        return names

    def _collect(self, inode: Inode) -> dict[bytes, int]:
        size = self._volume.superblock.block_size
        most = self._limit // NAME_COST
        names: dict[bytes, int] = {}
        for logical, data in self._blocks(inode, 0, max(1, _CHUNK // size)):
            for at in range(0, len(data), size):
                block = data[at : at + size]
                if not self._is_sound(inode, logical + at // size, block):
                    continue
                found = self._parse(inode, block, 0, size, logical + at // size).names
                for _behind, ino, _kind, name in self._found(inode, found):
                    if name not in names:  # of two with the same name, the first one counts
                        names[name] = ino
            if len(names) > most:
                return _TOO_MANY
        return names

    def _search(self, inode: Inode, name: bytes) -> int:
        """Look *name* up in a large directory: find its bytes, then parse the block that has them."""
        size = self._volume.superblock.block_size
        searched = parsed = 0
        if name in (b"", b".", b".."):
            return 0
        if inode.flags & (CASEFOLD_FL | ENCRYPT_FL):
            found = self._found(inode, self._listed(inode, 0))
            return next((ino for _behind, ino, _kind, stored in found if stored == name), 0)
        for logical, data in self._blocks(inode, 0, max(1, _CHUNK // size)):
            searched += len(data)
            at = data.find(name)
            while at >= 0:
                start = at - at % size
                parsed += 1
                if self._is_sound(inode, logical + start // size, data[start : start + size]):
                    ino = find_name(self._form, data, start, start + size, name)
                    if ino:
                        return ino
                at = data.find(name, start + size)
            if searched > MOST_SEARCHED or parsed > MOST_PARSED:
                raise damaged(f"directory {inode.ino} is too large to be searched")
        return 0
