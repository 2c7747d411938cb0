"""The opened image: inodes by number, and what can be asked of them. It knows nothing of FUSE's nodes and handles.

Memory: about *cache_bytes* of metadata in all, shared out here. Every method may block on the disk, and raises OSError for
an object that cannot be served (EIO: damaged; the sentence in ``strerror`` says what and where) and nothing else.
"""

from __future__ import annotations

import errno
import os
import stat

from fuservice.drivers.ext4 import features, inline, inodes, journal, mmp, orphans, space, symlinks, xattrs
from fuservice.drivers.ext4.caches import Generations
from fuservice.drivers.ext4.damage import damaged, wrong_checksum
from fuservice.drivers.ext4.data import ZEROS, read_all, read_data, seek
from fuservice.drivers.ext4.device import Device
from fuservice.drivers.ext4.directories import Directories
from fuservice.drivers.ext4.fastcommit import FastCommits
from fuservice.drivers.ext4.groups import Groups
from fuservice.drivers.ext4.inodes import parse_inode
from fuservice.drivers.ext4.metadata import Metadata
from fuservice.drivers.ext4.replay import Replay
from fuservice.drivers.ext4.superblock import NOT_REPLAYED, POSITION
from fuservice.drivers.ext4.verity import Verity
from fuservice.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from fuservice.drivers.ext4.fastcommit import FastTag
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.xattrs import XattrArea
    from fuservice.fuse.filesystem import StatFs

ROOT_INO: Final = 2
CACHE_BYTES: Final = 64 << 20
#: What one remembered inode costs as Python objects, with its attributes and its answer to a look-up: measured, rounded up.
INODE_COST: Final = 1400
#: Files with fs-verity whose descriptors, and what is known of their hash trees, are remembered.
MOST_VERITIES: Final = 32


class Volume:
    """An ext2, ext3 or ext4 filesystem in the file or device behind *fd*, which stays the caller's.

    ``warnings`` holds sentences for the user at opening; ``complaints`` grows, to a limit, with damage that was met.
    """

    __slots__ = (
        "_directories",
        "_groups",
        "_inodes",
        "_minixdf",
        "_recovered",
        "_statfs",
        "_verities",
        "complaints",
        "metadata",
        "superblock",
        "warnings",
    )

    def __init__(
        self, fd: int, *, offset: int = 0, size: int | None = None, cache_bytes: int = CACHE_BYTES,
        check: bool = True, recover: bool = False, position: int = POSITION, minixdf: bool = False,
    ) -> None:  # fmt: skip
        """Open what lies at *offset* of *fd* (*size* bytes at most); ImageError if that cannot be served.

        *check*: verify checksums. *recover*: show what a replay of the journal would leave, if it needs one.
        *position*: of the superblock, which may be a copy. *minixdf*: statfs counts the filesystem's structures as its own.
        """
        self._recovered: Replay | None = None
        self._open(Device(fd, offset=offset, size=size), cache_bytes, check=check, position=position)
        tags: list[FastTag] = []
        replaced = 0
        if recover and self.superblock.incompat & features.RECOVER:
            device, tags, replaced = journal.recovered(self)
            self._open(device, cache_bytes, check=check, position=position)
            self.warnings.remove(NOT_REPLAYED)
        self._inodes: Generations[int, Inode] = Generations(max(16, cache_bytes // 8 // INODE_COST), _one)
        self._directories = Directories(self, cache_bytes // 2)
        self._verities: Generations[int, Verity] = Generations(MOST_VERITIES, _one)
        self._statfs: StatFs | None = None
        self._minixdf = minixdf
        if recover:
            self._replay(tags, replaced)
        self._check_root()
        if using := mmp.user(self.metadata):
            self.warnings.append(using)

    def _open(self, device: Device, cache_bytes: int, *, check: bool, position: int) -> None:
        self.metadata = Metadata(device, cache_bytes // 4, check=check, position=position)
        self.superblock = self.metadata.superblock
        self.warnings, self.complaints = self.superblock.warnings, self.metadata.complaints
        self._groups = Groups(self.metadata)

    def _replay(self, tags: list[FastTag], replaced: int) -> None:
        """Do what the kernel does behind the log's replay of *replaced* blocks: *tags*, the fast commits, and the orphans."""
        self._recovered = replay = Replay(self)
        self._directories.changes = replay.names
        try:
            FastCommits(self, replay).run(tags)
            orphans.clean_up(self, replay)
        except OSError as error:
            raise ImageError(f"-o recover: {error.strerror} (leave recover out to see what is on the disk)") from error
        replay.count()
        if replaced or tags or replay.orphans:
            self.warnings.append(
                f"shown as a replay of its journal would leave it ({replaced} blocks, {len(tags)} fast commit tags, "
                f"{replay.orphans} orphans); nothing is written"
            )

    def _check_root(self) -> None:
        try:
            root = self.inode(ROOT_INO)
        except OSError as error:
            raise ImageError(f"the root directory cannot be read: {error.strerror}") from error
        if root.kind != stat.S_IFDIR or not root.size or not (root.attr.blocks or root.inline):
            raise ImageError("the root directory is damaged: no directory, or one without a block")

    def inode(self, ino: int) -> Inode:
        """Return inode *ino*; EIO where there is none in use, or it is one that no name may lead to."""
        inode = self._inodes.get(ino)
        if inode is None:
            if self.superblock.is_hidden(ino):
                raise damaged(f"inode {ino} is the filesystem's own")
            inode = self.any_inode(ino)
            if inode.flags & inodes.EA_INODE_FL:
                raise damaged(f"inode {ino} is the value of an extended attribute")
            if inode.flags & inodes.ENCRYPT_FL and inode.kind == stat.S_IFLNK:
                inode.attr.size = len(symlinks.target(self, inode))  # as stat(2) of the kernel counts
            self._inodes.put(ino, inode)
        return inode

    def any_inode(self, ino: int, *, unlinked: bool = False) -> Inode:
        """Return inode *ino*, uncached, the filesystem's own among them; EIO where its checksum is wrong.

        *unlinked*: one to which no name leads any more will do.
        """
        raw, checksums = self.raw_inode(ino), self.metadata.checksums
        remade = self._recovered and ino in self._recovered.inodes  # of these nobody has made the checksum anew
        if checksums and not remade and not checksums.inode(ino, raw):
            raise wrong_checksum(f"inode {ino} in block {self._place(ino)[0]}")
        inode = parse_inode(self.superblock, ino, raw, unlinked=unlinked)
        if inode.inline and not inline.is_in(self.superblock.incompat, inode, raw):
            inode.has_blocks()
        if inode.inline and inode.kind == stat.S_IFREG:
            # stat(2) counts a sector per 512 bytes of inline data, lest programs take the file for a hole
            inode.attr.blocks += inode.size + 511 >> 9
        return inode

    def check_group(self, group: int) -> None:
        """Read the descriptor of *group*; EIO where it is wild, a complaint where its checksum is wrong."""
        self._groups.inode_table(group)

    def raw_inode(self, ino: int) -> bytes:
        """Return the bytes of inode *ino* as its table has them; nobody has looked at their checksum."""
        if self._recovered and ino in self._recovered.inodes:
            return self._recovered.inodes[ino]
        number, at = self._place(ino)
        return self.metadata.block(number)[at : at + self.superblock.inode_size]

    def is_allocated(self, ino: int) -> bool:
        """Say whether the bitmap of its group has inode *ino* as one in use."""
        self._place(ino)
        return self._groups.is_allocated(ino)

    def _place(self, ino: int) -> tuple[int, int]:
        """Return the block that has inode *ino*, and the position there."""
        superblock = self.superblock
        if not 1 <= ino <= superblock.inodes_count:
            raise damaged(f"there is no inode {ino}")
        group, index = divmod(ino - 1, superblock.inodes_per_group)
        block, index = divmod(index, superblock.inodes_per_block)
        if block >= superblock.inode_blocks_per_group:
            raise damaged(f"inode {ino} has no place in the table of group {group}")
        return self._groups.inode_table(group) + block, index * superblock.inode_size

    def need_key(self, inode: Inode) -> None:
        """ENOKEY for an encrypted file, whose data nobody can read here."""
        if inode.flags & inodes.ENCRYPT_FL:
            raise OSError(errno.ENOKEY, os.strerror(errno.ENOKEY))

    def find(self, directory: Inode, name: bytes) -> Inode:
        """Return what *name* leads to in *directory* (any but "." and ".."); ENOENT where it has no such name."""
        self._need_directory(directory)
        ino = self._directories.find(directory, name)
        if ino in (directory.ino, ROOT_INO):
            # A name that leads upwards is no tree any more. (One that leads further up is the kernel's to refuse: ELOOP.)
            raise damaged(f"directory {directory.ino} has a name that leads back to inode {ino}")
        return self.inode(ino)

    def number_of(self, directory: Inode, name: bytes) -> int:
        """Return the inode number that *name* has in *directory*, 0 where it has no such name."""
        self._need_directory(directory)
        try:
            return self._directories.find(directory, name)
        except FileNotFoundError:
            return 0

    def name_key(self, directory: Inode, name: bytes) -> bytes:
        """Return what all names have in common that count as *name* in *directory*."""
        return self._directories.key(directory, name)

    def entries(self, directory: Inode, position: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (cookie, inode, kind, name) of the entries behind the cookie *position*, "." and ".." among them."""
        self._need_directory(directory)
        return self._directories.entries(directory, position)

    def _need_directory(self, inode: Inode) -> None:
        if inode.kind != stat.S_IFDIR:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def continuation(self, inode: Inode) -> bytes:
        """Return the data of an inline inode behind its first 60 bytes."""
        return inline.continuation(self.superblock.incompat, inode, self.raw_inode(inode.ino))

    def read(self, inode: Inode, offset: int, into: memoryview) -> memoryview:
        """Return up to ``len(into)`` bytes of a regular file from *offset*, in *into* or in memory that is never written."""
        if inode.inline:
            return inline.read_inline(inode.blocks + self.continuation(inode), inode.size, offset, into)
        if inode.flags & inodes.VERITY_FL and self.metadata.checks:
            return self.verity(inode).read(offset, into)
        return read_data(self.metadata, inode, offset, into)

    def verity(self, inode: Inode) -> Verity:
        """Return the verity metadata of a file that has the flag; EIO where they cannot be right."""
        known = self._verities.get(inode.ino)
        if known is None:
            known = Verity(self.metadata, inode)
            self._verities.put(inode.ino, known)
        return known

    def seek(self, inode: Inode, offset: int, whence: int) -> int:
        """Return the answer to SEEK_DATA or SEEK_HOLE."""
        if not inode.inline:
            return seek(self.metadata, inode, offset, whence)
        if not 0 <= offset < inode.size:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return offset if whence == os.SEEK_DATA else inode.size

    def xattr_names(self, inode: Inode) -> list[bytes]:
        """Return the full names of the extended attributes, as listxattr(2) shows them to root."""
        return [name for area in self._xattr_areas(inode) for name in xattrs.shown_names(area)]

    def xattr(self, inode: Inode, name: bytes) -> bytes:
        """Return the value of the attribute *name*; ENODATA where there is none."""
        index, stored_name = xattrs.split_name(name)
        for area in self._xattr_areas(inode):
            slot = xattrs.find_slot(area, index, stored_name)
            if slot:
                value = self._ea_inode_value(inode, slot[3], slot[4]) if slot[3] else xattrs.stored_value(area, slot)
                return xattrs.shown_value(inode, index, value)
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def _xattr_areas(self, inode: Inode) -> Iterator[XattrArea]:
        """Yield the area in the inode's body and the one in its block, each parsed only when it is reached."""
        if inode.xattrs:
            yield xattrs.body_area(self.superblock.incompat, inode, self.raw_inode(inode.ino))
        if inode.file_acl:
            yield xattrs.block_area(self.metadata, inode)

    def ea_inodes(self, inode: Inode) -> list[int]:
        """Return the inodes that hold values of attributes of *inode*."""
        return [slot[3] for area in self._xattr_areas(inode) for slot in area.slots if slot[3]]

    def _ea_inode_value(self, inode: Inode, ino: int, size: int) -> bytes:
        """Return a value that is the data of inode *ino* (feature ea_inode)."""
        if size > xattrs.LONGEST_VALUE:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        holder = None if self.superblock.is_hidden(ino) or ino == ROOT_INO else self.any_inode(ino)
        if holder is None or not holder.flags & inodes.EA_INODE_FL or holder.inline or holder.size != size:
            raise damaged(f"inode {inode.ino}: inode {ino} is not the value of an extended attribute of {size} bytes")
        return read_all(self.metadata, holder, size)

    def statfs(self) -> StatFs:
        """Return what statfs(2) shows; counted once."""
        if self._statfs is None:
            journal_bytes = self._journal_bytes()
            freed = (self._recovered.freed_blocks, self._recovered.freed_inodes) if self._recovered else (0, 0)
            self._statfs = space.statfs(
                self.superblock, self._groups, journal_bytes, minixdf=self._minixdf, freed=freed
            )
        return self._statfs

    def _journal_bytes(self) -> int:
        """Return the size of the internal journal, 0 where there is none that the kernel would accept."""
        superblock = self.superblock
        if not superblock.compat & features.HAS_JOURNAL or not superblock.journal_inum:
            return 0
        try:
            journal = self.any_inode(superblock.journal_inum)
        except OSError:
            return 0
        return journal.size if journal.kind == stat.S_IFREG else 0


def _one(_value: object) -> int:
    return 1


__all__ = ["CACHE_BYTES", "ROOT_INO", "ZEROS", "Volume"]
