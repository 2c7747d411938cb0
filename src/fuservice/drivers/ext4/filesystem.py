"""ext4 as the engine sees it: nodes are inode numbers, except that FUSE's root node 1 is inode 2.

The image never changes, so the answer to a look-up is made once per inode, and the kernel may keep everything it was told.
"""

from __future__ import annotations

import errno
import os
import stat

from fuservice.drivers.ext4 import features, ioctls, symlinks
from fuservice.drivers.ext4.data import read_data
from fuservice.drivers.ext4.superblock import POSITION
from fuservice.drivers.ext4.volume import CACHE_BYTES, ROOT_INO, Volume
from fuservice.fuse.filesystem import FOREVER, ROOT_NODE, DirEntry, Entry, Filesystem, Opened, unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.fuse.filesystem import Attr, Buffer, StatFs, Wait


FOPEN_KEEP_CACHE: Final = 1 << 1  # linux/fuse.h
FOPEN_CACHE_DIR: Final = 1 << 3
#: A look-up is remembered, for a kernel that may not (``timeout_ns``), for each so many bytes of cache: it keeps one inode, under 1 KiB.
BYTES_PER_LOOKUP: Final = 16_384


class Ext4Filesystem(Filesystem):
    """The filesystem in the image behind *fd*, which stays the caller's and must stay open as long as this object is used.

    *timeout_ns* is how long the kernel may believe a look-up or attributes; *keep_cache* lets it keep data and listings from
    one open to the next. Then open and opendir answer ENOSYS, by which the kernel opens without asking from then on (and keeps
    its caches); not so where the filesystem may have encrypted files, whose opening fails.
    ``volume.warnings`` holds sentences for the user.
    """

    def __init__(
        self, fd: int, *, offset: int = 0, size: int | None = None, timeout_ns: int = FOREVER, keep_cache: bool = True,
        cache_bytes: int = CACHE_BYTES, check: bool = True, recover: bool = False, position: int = POSITION, minixdf: bool = False,
    ) -> None:  # fmt: skip
        """Open the image (ImageError if it cannot be served): *size* bytes from byte *offset*, all of it by default.

        *check*: verify the checksums of metadata. *recover*: show what a replay of the journal would leave.
        *position* is that of the superblock, in bytes; *minixdf*: statfs counts the filesystem's structures as its own.
        """
        self.volume = Volume(
            fd, offset=offset, size=size, cache_bytes=cache_bytes, check=check, recover=recover, position=position,
            minixdf=minixdf,
        )  # fmt: skip
        self._timeout_ns = timeout_ns
        encrypted = self.volume.superblock.incompat & features.ENCRYPT
        self._kernel_opens = keep_cache and not encrypted
        self._found: dict[tuple[int, bytes], Entry] = {}
        self._most_found = cache_bytes // BYTES_PER_LOOKUP
        self._opened = Opened(0, FOPEN_KEEP_CACHE if keep_cache else 0)
        self._opened_directory = Opened(0, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR if keep_cache else 0)

    def _inode(self, node: int) -> Inode:
        # Node 2 would be the root by another number: no look-up gives it.
        return self.volume.inode(ROOT_INO if node == ROOT_NODE else node)

    def wait_with(self, wait: Wait, perhaps: Wait) -> None:
        self.volume.metadata.device.wait_with(wait, perhaps)

    def lookup(self, parent: int, name: bytes) -> Entry:
        found = self._found.get((parent, name))
        return found if found is not None else self._look_up(parent, name)

    def _look_up(self, parent: int, name: bytes) -> Entry:
        inode = self.volume.find(self._inode(parent), name)
        entry = inode.entry
        if entry is None:
            entry = inode.entry = Entry(
                inode.ino, inode.attr, generation=inode.generation, entry_timeout_ns=self._timeout_ns,
                attr_timeout_ns=self._timeout_ns,
            )  # fmt: skip
        if len(self._found) >= self._most_found:
            self._found.clear()
        self._found[parent, name] = entry
        return entry

    def getattr(self, node: int) -> Attr:
        """Return the one Attr object of the inode: it never changes."""
        return self.volume.inode(ROOT_INO if node == ROOT_NODE else node).attr

    def attr_timeout(self) -> int:
        return self._timeout_ns

    def readlink(self, node: int) -> bytes:
        """Return where the link leads; EINVAL if it is none."""
        return symlinks.target(self.volume, self._inode(node))

    def open(self, node: int, flags: int) -> Opened:
        """Open a file: EISDIR or EINVAL if it is none, ENOKEY if it is encrypted, ENOSYS as the class says."""
        if self._kernel_opens:
            raise unsupported()
        self._regular(node)
        return self._opened

    def opendir(self, node: int) -> Opened:
        """Let a directory be listed: ENOTDIR if it is none, ENOSYS as the class says."""
        if self._kernel_opens:
            raise unsupported()
        self.volume.entries(self._inode(node), 0)
        return self._opened_directory

    def _regular(self, node: int) -> Inode:
        inode = self._inode(node)
        if inode.kind != stat.S_IFREG:
            number = errno.EISDIR if inode.kind == stat.S_IFDIR else errno.EINVAL
            raise OSError(number, os.strerror(number))
        self.volume.need_key(inode)
        return inode

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> Buffer:
        volume = self.volume
        inode = volume.inode(ROOT_INO if node == ROOT_NODE else node)
        if inode.plain:
            return read_data(volume.metadata, inode, offset, into)
        return volume.read(self._regular(node), offset, into)

    def readdir(self, node: int, handle: int, offset: int) -> Iterator[DirEntry]:
        for cookie, ino, kind, name in self.volume.entries(self._inode(node), offset):
            yield DirEntry(name, ino, kind, cookie)

    def statfs(self) -> StatFs:
        """Return what the kernel's ext4 would: blocks without those of the filesystem itself."""
        return self.volume.statfs()

    def getxattr(self, node: int, name: bytes) -> bytes:
        return self.volume.xattr(self._inode(node), name)

    def listxattr(self, node: int) -> list[bytes]:
        """Return what the kernel shows to root: the engine hides "trusted." from others."""
        return self.volume.xattr_names(self._inode(node))

    def control(self, node: int, handle: int, command: int, data: bytes, room: int) -> bytes:
        return ioctls.answer(self.volume, self._inode(node), command, data)

    def lseek(self, node: int, handle: int, offset: int, whence: int) -> int:
        return self.volume.seek(self._regular(node), offset, whence)
