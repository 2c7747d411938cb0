"""memtree: a read-only filesystem in memory, described by plain Python values. It serves the tests and the bench.

A directory is a dict, a file is its bytes, and where more is to be said there is a class::

    Memtree({
        "readme": b"hello\\n",
        "bin": {"tool": File(b"\\x7fELF…", mode=0o4755, uid=7), "t": Symlink(b"tool")},
        "image": File(size=1 << 40, extents={0: b"start", 1 << 30: b"far"}, xattrs={b"user.a": b"1"}),
    })

Two names of one object are hard links. Nodes are numbered as they are met, the root first.
"""

from __future__ import annotations

import errno
import mmap
import os

from fuservice.fuse import abi
from fuservice.fuse.filesystem import ROOT_NODE, Attr, DirEntry, Entry, Filesystem, Opened, StatFs
from fuservice.service import Driver, Fd, service_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    Tree: TypeAlias = Mapping[str, "bytes | Inode | Tree"] | Mapping[bytes, "bytes | Inode | Tree"]


class Inode:
    """What every kind of inode has. Times are integer nanoseconds; ``mode`` holds the permission bits."""

    kind = 0
    size = 0

    def __init__(
        self, *, mode: int = 0o644, uid: int = 0, gid: int = 0, atime_ns: int = 0, mtime_ns: int = 0, ctime_ns: int = 0,
        btime_ns: int | None = None, xattrs: Mapping[bytes, bytes] | None = None, rdev: int = 0,
    ) -> None:  # fmt: skip
        self.mode, self.uid, self.gid, self.rdev, self.xattrs = mode, uid, gid, rdev, dict(xattrs or {})
        self.atime_ns, self.mtime_ns, self.ctime_ns, self.btime_ns = atime_ns, mtime_ns, ctime_ns, btime_ns

    def attr(self, ino: int, nlink: int) -> Attr:
        """Return what stat(2) shows of it."""
        return Attr(
            ino=ino, mode=self.kind | self.mode, size=self.size, blocks=self.blocks(), nlink=nlink, uid=self.uid, gid=self.gid,
            rdev=self.rdev, atime_ns=self.atime_ns, mtime_ns=self.mtime_ns, ctime_ns=self.ctime_ns, btime_ns=self.btime_ns,
        )  # fmt: skip

    def blocks(self) -> int:
        """Return how many 512-byte units it takes."""
        return 0


def on_pages(data: bytes) -> memoryview:
    """Return *data*, copied to a page's boundary if it has pages: the kernel takes it page by page."""
    if len(data) < mmap.PAGESIZE:
        return memoryview(data)
    pages = mmap.mmap(-1, len(data))
    pages[:] = data
    return memoryview(pages)


class File(Inode):
    """A regular file: its *data*, or *size* bytes of nothing with *extents* (offset → bytes, not overlapping) in it."""

    kind = abi.S_IFREG

    def __init__(self, data: bytes = b"", *, size: int = -1, extents: Mapping[int, bytes] | None = None, **rest: object) -> None:  # fmt: skip
        super().__init__(**rest)  # type: ignore[arg-type]
        self.extents = sorted((extents or ({0: data} if data else {})).items())
        self.size = size if size >= 0 else max((at + len(piece) for at, piece in self.extents), default=0)

    def blocks(self) -> int:
        """Return how many 512-byte units the extents take: holes take none."""
        return sum(-(-len(piece) // 512) for _, piece in self.extents)

    def is_whole(self) -> bool:
        """Say whether one extent is all of the file."""
        return len(self.extents) == 1 and self.extents[0][0] == 0 and len(self.extents[0][1]) == self.size

    def read(self, offset: int, into: memoryview) -> memoryview:
        """Return up to ``len(into)`` bytes from *offset*, put together from extents and holes."""
        end = max(offset, min(offset + len(into), self.size))
        into[: end - offset] = bytes(end - offset)
        for at, piece in self.extents:
            low, high = max(at, offset), min(at + len(piece), end)
            if low < high:
                into[low - offset : high - offset] = piece[low - at : high - at]
        return into[: end - offset]

    def seek(self, offset: int, whence: int) -> int:
        """Return where data or a hole begins from *offset* on, as lseek(2) says it."""
        if offset >= self.size:
            raise OSError(errno.ENXIO, "beyond the end")
        for at, piece in self.extents:
            if offset < at:
                return at if whence == os.SEEK_DATA else offset
            if offset < at + len(piece):
                if whence == os.SEEK_DATA:
                    return offset
                offset = at + len(piece)
        if whence == os.SEEK_DATA:
            raise OSError(errno.ENXIO, "no data behind it")
        return min(offset, self.size)


class Directory(Inode):
    """A directory of *children*, for where a dict cannot say enough."""

    kind = abi.S_IFDIR

    def __init__(self, children: Tree, *, mode: int = 0o755, **rest: object) -> None:
        super().__init__(mode=mode, **rest)  # type: ignore[arg-type]
        self.children = {os.fsencode(name): _inode(child) for name, child in children.items()}


class Symlink(Inode):
    """A symbolic link."""

    kind = abi.S_IFLNK

    def __init__(self, target: bytes, **rest: object) -> None:
        super().__init__(mode=0o777, **rest)  # type: ignore[arg-type]
        self.target, self.size = target, len(target)


class Special(Inode):
    """A FIFO, a socket or a device node: *kind* is its S_IFMT bits."""

    def __init__(self, kind: int, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self.kind = kind


def _inode(value: bytes | Inode | Tree) -> Inode:
    if isinstance(value, Inode):
        return value
    return File(value) if isinstance(value, bytes) else Directory(value)


class Memtree(Filesystem):
    """*tree* as a filesystem; the kernel may believe names and attributes for *timeout_ns*, and opens files with *open_flags*."""

    def __init__(self, tree: Tree | Directory, *, timeout_ns: int = 0, open_flags: int = 0) -> None:
        self._timeout_ns, self._opened = timeout_ns, Opened(0, open_flags)
        root = tree if isinstance(tree, Directory) else Directory(tree)
        self._inodes, self._attrs = self._number(root)
        files = ((node, inode) for node, inode in self._inodes.items() if isinstance(inode, File))
        self._whole = {node: on_pages(file.extents[0][1]) for node, file in files if file.is_whole()}
        self._entries: dict[int, dict[bytes, Entry]] = {}
        self._listings: dict[int, list[DirEntry]] = {}
        for node, inode in self._inodes.items():
            if isinstance(inode, Directory):
                self._list(node, inode)

    def _number(self, root: Directory) -> tuple[dict[int, Inode], dict[int, Attr]]:
        """Give each inode its number (breadth first) and its attributes, now that all its links are known."""
        self._numbers: dict[int, int] = {id(root): ROOT_NODE}
        inodes: list[Inode] = [root]
        links = {id(root): 2}
        for directory in inodes:  # grows as it goes
            for child in directory.children.values() if isinstance(directory, Directory) else ():
                if id(child) not in self._numbers:
                    self._numbers[id(child)] = ROOT_NODE + len(inodes)
                    inodes.append(child)
                links[id(child)] = links.get(id(child), isinstance(child, Directory)) + 1
                links[id(directory)] += isinstance(child, Directory)
        numbered = dict(enumerate(inodes, ROOT_NODE))
        return numbered, {node: inode.attr(node, links[id(inode)]) for node, inode in numbered.items()}

    def _list(self, here: int, directory: Directory) -> None:
        """Prepare all answers about *directory*. ".." is told as the directory itself: the kernel knows better."""
        listing, entries = self._listings.setdefault(here, []), self._entries.setdefault(here, {})
        named = [(b".", here), (b"..", here), *((name, self._numbers[id(c)]) for name, c in directory.children.items())]
        for cookie, (name, node) in enumerate(named, 1):
            attr = self._attrs[node]
            listing.append(DirEntry(name, node, attr.mode & abi.S_IFMT, cookie))
            if cookie > 2:
                timeout = self._timeout_ns
                entries[name] = Entry(node, attr, entry_timeout_ns=timeout, attr_timeout_ns=timeout)

    def _get(self, node: int) -> Inode:
        inode = self._inodes.get(node)
        if inode is None:
            raise OSError(errno.ESTALE, "no such node")
        return inode

    def _file(self, node: int) -> File:
        inode = self._get(node)
        if not isinstance(inode, File):
            raise OSError(errno.EISDIR if isinstance(inode, Directory) else errno.EINVAL, "not a file")
        return inode

    def lookup(self, parent: int, name: bytes) -> Entry:
        try:
            return self._entries[parent][name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such name") from None

    def getattr(self, node: int) -> Attr:
        try:
            return self._attrs[node]
        except KeyError:
            raise OSError(errno.ESTALE, "no such node") from None

    def attr_timeout(self) -> int:
        return self._timeout_ns

    def readlink(self, node: int) -> bytes:
        inode = self._get(node)
        if not isinstance(inode, Symlink):
            raise OSError(errno.EINVAL, "not a symbolic link")
        return inode.target

    def open(self, node: int, flags: int) -> Opened:
        return self._opened

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        whole = self._whole.get(node)
        return self._file(node).read(offset, into) if whole is None else whole[offset : offset + len(into)]

    def lseek(self, node: int, handle: int, offset: int, whence: int) -> int:
        return self._file(node).seek(offset, whence)

    def readdir(self, node: int, handle: int, offset: int) -> Iterator[DirEntry]:
        listing = self._listings.get(node)
        if listing is None:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        return (listing[at] for at in range(offset, len(listing)))

    def statfs(self) -> StatFs:
        blocks = sum(attr.blocks for attr in self._attrs.values())
        return StatFs(blocks=blocks // 8, files=len(self._attrs))

    def getxattr(self, node: int, name: bytes) -> bytes:
        value = self._get(node).xattrs.get(name)
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return value

    def listxattr(self, node: int) -> list[bytes]:
        return list(self._get(node).xattrs)


class MemtreeDriver(Driver):
    """The service: no image, only a mount point, and a small tree to look at."""

    name = "memtree"

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        hello = File(b"Hello from a server that can do nothing else.\n", xattrs={b"user.origin": b"memory"})
        return Memtree(
            {"hello": hello, "again": hello, "link": Symlink(b"deep/er/file"), "deep": {"er": {"file": b"x" * 10_000}}}
        )


def main() -> int:
    """Be the service; the entry point of fuservice-memtree."""
    return service_main(MemtreeDriver)
