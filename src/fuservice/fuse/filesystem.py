"""What a filesystem is to the engine: the operations a driver implements, and the values they return.

The engine (``fuse.session``) calls these methods one request at a time; see :meth:`Filesystem.wait_with` for what a driver
may do about a slow disk. A method that a driver does not override answers ENOSYS. A driver says no by raising ``OSError(errno)``; any other exception is a bug of the driver,
which becomes EIO for that request, is logged once with the path, and leaves the mount alive.
A request that goes over a budget (``fuse.budget``) fails with BudgetError, an OSError that may be raised inside of a method
that runs for too long: let it through.

Nodes are numbers chosen by the driver: ``ROOT_NODE`` is the root, every other one must be unique while the kernel knows
it. The engine counts the kernel's references; :meth:`Filesystem.forget` is called once the last one is gone.

Times are integer nanoseconds since 1970 (negative before), timeouts too; sizes and offsets are bytes; names are bytes.
Numbers and meanings: linux/fuse.h, stat(2), statfs(2), lseek(2), xattr(7).
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final, ParamSpec, Protocol, TypeAlias, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

    class Wait(Protocol):
        """What lets others be served while *call* takes long, and returns what it does; :meth:`Filesystem.wait_with`."""

        def __call__(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    #: What :meth:`Filesystem.read` may return.
    Buffer: TypeAlias = bytes | bytearray | memoryview

ROOT_NODE: Final = 1  # FUSE_ROOT_ID
FOREVER: Final = 365 * 86_400 * 10**9  # a year: for images that cannot change


class Attr:
    """Attributes of one inode, as stat(2) shows them. Immutable once it was handed to the engine.

    ``mode`` has type and permission bits; ``blocks`` counts 512-byte units; ``rdev`` is as os.makedev() makes it;
    ``btime_ns`` is the time of birth, or None where the filesystem has none.
    """

    __slots__ = (
        "atime_ns", "blksize", "blocks", "btime_ns", "ctime_ns", "gid", "ino", "mode", "mtime_ns", "nlink", "packed", "rdev", "size", "uid",
    )  # fmt: skip

    def __init__(
        self, *, ino: int, mode: int, size: int = 0, blocks: int = 0, nlink: int = 1, uid: int = 0, gid: int = 0,
        rdev: int = 0, blksize: int = 4096, atime_ns: int = 0, mtime_ns: int = 0, ctime_ns: int = 0, btime_ns: int | None = None,
    ) -> None:  # fmt: skip
        self.ino, self.mode, self.size, self.blocks = ino, mode, size, blocks
        self.nlink, self.uid, self.gid, self.rdev, self.blksize = nlink, uid, gid, rdev, blksize
        self.atime_ns, self.mtime_ns, self.ctime_ns, self.btime_ns = atime_ns, mtime_ns, ctime_ns, btime_ns
        self.packed: bytes | None = None  # the engine's: the checked wire form, made at first use


class Entry:
    """The answer to a look-up: a node, its attributes, and for how long the kernel may believe both. Not changed once it was given."""

    __slots__ = ("attr", "attr_timeout_ns", "entry_timeout_ns", "generation", "node", "packed")

    def __init__(
        self, node: int, attr: Attr, *, generation: int = 0, entry_timeout_ns: int = 0, attr_timeout_ns: int = 0
    ) -> None:
        self.node, self.attr, self.generation = node, attr, generation
        self.entry_timeout_ns, self.attr_timeout_ns = entry_timeout_ns, attr_timeout_ns
        self.packed: bytes | None = None  # the engine's, as an Attr has it


class DirEntry:
    """One name of a directory. ``kind`` holds the S_IFMT bits (0: unknown), ``offset`` is the cookie that resumes *after* it."""

    __slots__ = ("ino", "kind", "name", "offset")

    def __init__(self, name: bytes, ino: int, kind: int, offset: int) -> None:
        self.name, self.ino, self.kind, self.offset = name, ino, kind, offset


class Opened:
    """The answer to open and opendir: a handle of the driver's choice and FOPEN_ flags (linux/fuse.h)."""

    __slots__ = ("flags", "handle")

    def __init__(self, handle: int = 0, flags: int = 0) -> None:
        self.handle, self.flags = handle, flags


class StatFs:
    """The answer to statfs(2): counts in units of ``frsize`` bytes, ``namelen`` in bytes."""

    __slots__ = ("bavail", "bfree", "blocks", "bsize", "ffree", "files", "frsize", "namelen")

    def __init__(
        self, *, blocks: int = 0, bfree: int = 0, bavail: int = 0, files: int = 0, ffree: int = 0,
        bsize: int = 4096, frsize: int = 4096, namelen: int = 255,
    ) -> None:  # fmt: skip
        self.blocks, self.bfree, self.bavail, self.files, self.ffree = blocks, bfree, bavail, files, ffree
        self.bsize, self.frsize, self.namelen = bsize, frsize, namelen


def unsupported() -> OSError:
    """Return the error of an operation that a filesystem does not have."""
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class Filesystem:
    """Base class of every driver's filesystem. The write side will be more methods of this class."""

    def wait_with(self, wait: Wait, perhaps: Wait) -> None:
        """Learn how to wait, before the first request: ``wait(call, *arguments)`` returns what the call does.

        ``perhaps`` does so for calls that mostly take no time: in them others wait for a moment, but nobody pays for what is quick.

        Meanwhile other requests are served, from other threads: other methods of this object are called, whatever was read
        may have been read again by them, and only a node about which a request is open is surely still the kernel's. The
        call itself may touch nothing that they touch: a read from a slow disk into memory of its own. A driver that does
        not wait so is never called by two threads at a time.
        """

    def lookup(self, parent: int, name: bytes) -> Entry:
        """Find *name* in directory *parent*; ENOENT where there is none. The engine answers "." and ".." for nobody: it refuses them."""
        raise unsupported()

    def forget(self, node: int) -> None:
        """The kernel no longer knows *node*: whatever was kept for it may go. Must not raise."""

    def getattr(self, node: int) -> Attr:
        """Return the attributes of *node*: the same object each time, if they have not changed (its wire form is kept in it)."""
        raise unsupported()

    def attr_timeout(self) -> int:
        """Return for how long (ns) the kernel may believe the answer to getattr."""
        return 0

    def readlink(self, node: int) -> bytes:
        """Return the target of a symbolic link, at most 4,095 bytes; EINVAL where *node* is none."""
        raise unsupported()

    def open(self, node: int, flags: int) -> Opened:
        """Open a regular file; *flags* as for open(2). The engine has already refused writing with EROFS."""
        return Opened()

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> Buffer:
        """Return up to ``len(into)`` bytes from *offset*; fewer only at the end of the file.

        *into* is a writable buffer that the engine lends until the next request: fill it and return ``into[:n]``, or
        return bytes or a memoryview of the driver's own (they are sent without another copy).
        """
        raise unsupported()

    def flush(self, node: int, handle: int) -> None:
        """A descriptor of *handle* was closed (there may be others). ENOSYS tells the kernel not to ask again."""
        raise unsupported()

    def release(self, node: int, handle: int) -> None:
        """The last descriptor of *handle* is closed. Must not raise."""

    def opendir(self, node: int) -> Opened:
        """Open a directory."""
        return Opened()

    def readdir(self, node: int, handle: int, offset: int) -> Iterable[DirEntry]:
        """Yield the entries that follow cookie *offset* (0: from the start), "." and ".." among them.

        The engine stops taking entries when the kernel's buffer is full, so yield lazily.
        """
        raise unsupported()

    def releasedir(self, node: int, handle: int) -> None:
        """The last descriptor of *handle* is closed. Must not raise."""

    def statfs(self) -> StatFs:
        """Return what statfs(2) shows."""
        return StatFs()

    def getxattr(self, node: int, name: bytes) -> bytes:
        """Return the value; ENODATA where there is none."""
        raise unsupported()

    def listxattr(self, node: int) -> Iterable[bytes]:
        """Return the names, each with its namespace ("user.", "security." …)."""
        raise unsupported()

    def access(self, node: int, mask: int) -> None:
        """Return if access(2) for *mask* is allowed, EACCES if not. ENOSYS: always, and do not ask again."""
        raise unsupported()

    def lseek(self, node: int, handle: int, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE only (the kernel does the others); ENXIO beyond the end."""
        raise unsupported()

    def control(self, node: int, handle: int, command: int, data: bytes, room: int) -> bytes:
        """Return what ioctl(2) with *command* gives for *data*, at most *room* bytes; ENOTTY where it is none of this filesystem's.

        lsattr(1) and statx(2)'s kin ask so, of files and directories, whether or not they are open.
        """
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    def destroy(self) -> None:
        """The mount is gone; no request follows. Close what is open."""
