"""One method for each opcode of a read-only filesystem: from the request in the buffer to the body of the reply.

A method gets the node and the request's length, reads its arguments from the session's buffer, and returns the reply's
body: bytes, a memoryview (file data, sent without a copy), or None where the protocol has no reply. It raises what the
driver raises. No I/O here; delivering the reply, and counting the nodes that it hands out, is the session's.

Opcodes that change the filesystem are answered EROFS: our mounts are read-only, so the kernel asks only where somebody
mounted them writable by hand, and "Read-only file system" tells that user more than "Function not implemented".
Everything else is ENOSYS, which the kernel takes as "never ask again" and replaces by its own default. The write side,
when it comes, is a subclass with a longer table.
"""

from __future__ import annotations

import errno
import os

from fuservice.fuse import abi, codec
from fuservice.fuse.abi import Op
from fuservice.fuse.budget import BudgetError
from fuservice.fuse.filesystem import FOREVER, Filesystem, unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from fuservice.fuse.budget import Budgets
    from fuservice.fuse.codec import Policy
    from fuservice.fuse.failures import Failures
    from fuservice.fuse.filesystem import DirEntry, Entry, Opened
    from fuservice.fuse.nodes import Nodes

    Body: TypeAlias = bytes | memoryview | None
    Handler: TypeAlias = Callable[[int, int], Body]

BODY = codec.BODY
NOT_RDONLY = os.O_ACCMODE | os.O_TRUNC
_read_in, _open_in, _release_in = abi.READ_IN_START.unpack_from, abi.OPEN_IN.unpack_from, abi.RELEASE_IN.unpack_from
_WRITING = (
    Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.RENAME2, Op.LINK, Op.CREATE, Op.TMPFILE,
    Op.WRITE, Op.SETXATTR, Op.REMOVEXATTR, Op.FALLOCATE, Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64,
)  # fmt: skip
_GIVING = frozenset((Op.LOOKUP, Op.READDIRPLUS))
#: So many places where a listing will be resumed are remembered, the latest ones.
MOST_LISTED = 1_024


def _not_offered(_node: int, _size: int) -> Body:
    raise unsupported()


def _read_only(_node: int, _size: int) -> Body:
    raise OSError(errno.EROFS, "read-only filesystem")


def _silence(_node: int, _size: int) -> Body:
    return None


class Operations:
    """The handlers of one session."""

    def __init__(
        self, filesystem: Filesystem, request: bytearray, into: memoryview, policy: Policy, budgets: Budgets, nodes: Nodes,
        failures: Failures,
    ) -> None:  # fmt: skip
        self._fs, self._request, self._into, self._policy = filesystem, request, into, policy
        self._budgets, self._nodes, self._failures = budgets, nodes, failures
        self._given: tuple[int, ...] | list[int] = ()  # the nodes that the reply in the making hands out
        self._fs_getattr, self._fs_lookup, self._fs_read = filesystem.getattr, filesystem.lookup, filesystem.read
        # Where not everybody may see it, the kernel must ask each time: it does not keep who it was that it showed it to.
        self._valid_ns = filesystem.attr_timeout() if policy.only is None else 0
        seconds, nanoseconds = codec.timeout(self._valid_ns)
        self._valid = abi.ATTR_OUT.pack(seconds, nanoseconds, 0, b"")[:16]
        self.immutable = self._valid_ns >= FOREVER
        kind = type(filesystem)
        # A driver that does nothing in open() and whose files never change need not be asked: ENOSYS makes the kernel
        # open by itself from then on, and keep its cache (NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT).
        self.opens_itself = self.immutable and kind.open is Filesystem.open and kind.release is Filesystem.release
        self.opens_dirs_itself = (
            self.immutable and kind.opendir is Filesystem.opendir and kind.releasedir is Filesystem.releasedir
        )

    def table(self) -> list[tuple[Handler, int]]:
        """Return for each opcode its handler, and the least length of a request."""
        served: dict[int, tuple[Handler, int]] = {
            Op.LOOKUP: (self._lookup, 2), Op.FORGET: (self._forget, abi.FORGET_IN.size),
            Op.BATCH_FORGET: (self._batch_forget, abi.BATCH_FORGET_IN.size), Op.GETATTR: (self._getattr, 0),
            Op.STATX: (self._statx, abi.STATX_IN.size), Op.READLINK: (self._readlink, 0),
            Op.OPEN: (self._open, abi.OPEN_IN.size), Op.READ: (self._read, abi.READ_IN.size),
            Op.FLUSH: (self._flush, abi.FLUSH_IN.size), Op.RELEASE: (self._release, abi.RELEASE_IN.size),
            Op.OPENDIR: (self._opendir, abi.OPEN_IN.size), Op.READDIR: (self._readdir, abi.READ_IN.size),
            Op.READDIRPLUS: (self._readdirplus, abi.READ_IN.size), Op.RELEASEDIR: (self._releasedir, abi.RELEASE_IN.size),
            Op.STATFS: (self._statfs, 0), Op.GETXATTR: (self._getxattr, abi.GETXATTR_IN.size + 2),
            Op.LISTXATTR: (self._listxattr, abi.GETXATTR_IN.size), Op.ACCESS: (self._access, abi.ACCESS_IN.size),
            Op.LSEEK: (self._lseek, abi.LSEEK_IN.size), Op.IOCTL: (self._ioctl, abi.IOCTL_IN.size),
            # An INTERRUPT is too late, or about a request that waits for a disk, as whoever asked would without us: an
            # answer to that now would let the kernel forget the node under it. Nothing is answered to an INTERRUPT
            # (Documentation/filesystems/fuse/fuse.rst).
            Op.INTERRUPT: (_silence, 0), Op.NOTIFY_REPLY: (_silence, 0),
        }  # fmt: skip
        served.update(dict.fromkeys(_WRITING, (_read_only, 0)))
        other = (_not_offered, 0)
        return [(handler, BODY + least) for handler, least in (served.get(op, other) for op in range(abi.OP_LIMIT))]

    # Nodes

    def _lookup(self, parent: int, size: int) -> Body:
        self._given = ()
        name = codec.child_name_in(self._request, size)
        try:
            entry = self._fs_lookup(parent, name)
        except FileNotFoundError:
            if not self.immutable:
                raise
            return codec.no_entry_bytes(self._valid_ns)
        body = self._entry(entry, parent, name)
        self._given = (entry.node,)
        return body

    def _entry(self, entry: Entry, parent: int, name: bytes) -> bytes:
        """Return *entry* as the reply tells it, and count that the kernel has its node by *name* in *parent*."""
        try:
            body = entry.packed or codec.entry_bytes(entry, self._policy)
            self._nodes.give(entry.node, parent, name)
            return body  # noqa: TRY300 - no other place is as quick
        except Exception:
            if entry.node not in self._nodes:  # else the kernel has it by another name
                self._gone(entry.node)
            raise

    def take_back(self, opcode: int) -> None:
        """The reply to *opcode*, the last request, did not reach the kernel: it has none of the nodes in it."""
        if opcode in _GIVING:
            given, self._given = self._given, ()
            for node in given:
                if self._nodes.forget(node, 1):
                    self._gone(node)

    def _gone(self, node: int) -> None:
        try:
            self._fs.forget(node)
        except Exception as error:  # noqa: BLE001 - it must not raise, and there is nobody to answer
            self._failures.note(Op.FORGET, node, b"", error)

    def _forget(self, node: int, _size: int) -> Body:
        if self._nodes.forget(node, abi.FORGET_IN.unpack_from(self._request, BODY)[0]):
            self._gone(node)
        return None

    def _batch_forget(self, _node: int, size: int) -> Body:
        for node, count in codec.forgets_in(self._request, size):
            if self._nodes.forget(node, count):
                self._gone(node)
        return None

    def _getattr(self, node: int, _size: int) -> Body:
        attr = self._fs_getattr(node)
        return self._valid + (attr.packed or codec.attr_bytes(attr, self._policy))

    def _statx(self, node: int, _size: int) -> Body:
        return codec.statx_bytes(self._fs_getattr(node), self._policy, self._valid_ns)

    def _readlink(self, node: int, _size: int) -> Body:
        return codec.link_bytes(self._fs.readlink(node))

    def _access(self, node: int, _size: int) -> Body:
        mask, _ = abi.ACCESS_IN.unpack_from(self._request, BODY)
        self._fs.access(node, mask)
        return b""

    def _statfs(self, _node: int, _size: int) -> Body:
        return codec.statfs_bytes(self._fs.statfs())

    # Files

    def _open(self, node: int, _size: int) -> Body:
        flags, _ = _open_in(self._request, BODY)
        if flags & NOT_RDONLY:
            raise OSError(errno.EROFS, "read-only filesystem")
        if self.opens_itself:
            raise unsupported()
        return self._opened(self._fs.open(node, flags), node, self._fs.release)

    def _opened(self, opened: Opened, node: int, release: Callable[[int, int], None]) -> bytes:
        handles = self._nodes.handles + 1
        try:
            if handles > self._budgets.handles.peak:
                self._budgets.handles.need(handles)
            body = codec.opened_bytes(opened)
        except Exception:
            release(node, opened.handle)
            raise
        self._nodes.handles = handles
        return body

    def _read(self, node: int, _size: int) -> Body:
        handle, offset, asked = _read_in(self._request, BODY)
        if offset > codec.S64 or asked > len(self._into):
            raise codec.MalformedRequestError(f"read of {asked} bytes at {offset}, more than was negotiated")
        return codec.data_view(self._fs_read(node, handle, offset, self._into[:asked]), asked)

    def _lseek(self, node: int, _size: int) -> Body:
        handle, offset, whence, _ = abi.LSEEK_IN.unpack_from(self._request, BODY)
        if offset > codec.S64 or whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, "no such whence")
        return codec.lseek_bytes(self._fs.lseek(node, handle, offset, whence), offset)

    def _ioctl(self, node: int, size: int) -> Body:
        """Only what the kernel calls restricted: its number tells how many bytes go in and out (and it allows no other)."""
        handle, _flags, command, _arg, given, room = abi.IOCTL_IN.unpack_from(self._request, BODY)
        start = BODY + abi.IOCTL_IN.size
        if given != size - start:
            raise codec.MalformedRequestError(f"ioctl with {size - start} bytes, says {given}")
        return codec.ioctl_bytes(self._fs.control(node, handle, command, bytes(self._request[start:size]), room), room)

    def _flush(self, node: int, _size: int) -> Body:
        self._fs.flush(node, abi.FLUSH_IN.unpack_from(self._request, BODY)[0])
        return b""

    def _release(self, node: int, _size: int) -> Body:
        self._nodes.handles -= 1
        self._fs.release(node, _release_in(self._request, BODY)[0])
        return b""

    # Directories

    def _opendir(self, node: int, _size: int) -> Body:
        if self.opens_dirs_itself:
            raise unsupported()
        return self._opened(self._fs.opendir(node), node, self._fs.releasedir)

    def _releasedir(self, node: int, _size: int) -> Body:
        self._nodes.handles -= 1
        self._fs.releasedir(node, _release_in(self._request, BODY)[0])
        return b""

    def _readdir(self, node: int, _size: int) -> Body:
        return self._listing(node, 0, lambda _entry: b"")

    def _readdirplus(self, node: int, _size: int) -> Body:
        given: list[int] = []
        self._given = given
        return self._listing(node, abi.ENTRY_OUT.size, lambda entry: self._plus(node, entry, given))

    def _listing(self, node: int, extra: int, details: Callable[[DirEntry], bytes]) -> bytes:
        """Collect entries while they fit, each behind its *details* of *extra* bytes, which are made only then."""
        handle, offset, room = _read_in(self._request, BODY)
        before = self._nodes.listed.get((node, offset), 0) if offset else 0
        self._budgets.entries.need(before)
        records: list[bytes] = []
        try:
            for entry in self._fs.readdir(node, handle, offset):
                record = codec.dirent_bytes(entry)
                room -= extra + len(record)
                if room < 0:
                    break
                records.append(details(entry) + record)
                offset = entry.offset
        except Exception:
            if not records:
                raise
            # What was read before the damage is good: the call that resumes behind it meets the error again.
        if room < 0 and not records:
            raise OSError(errno.EINVAL, "no room for one entry")
        if records:
            self._resumable(node, offset, before + len(records))
        return b"".join(records)

    def _resumable(self, node: int, offset: int, before: int) -> None:
        """Remember how many entries lie before the cookie *offset*, where the next READDIR goes on."""
        self._nodes.listed.pop((node, offset), None)  # so that it becomes the latest
        self._nodes.listed[node, offset] = before
        if len(self._nodes.listed) > MOST_LISTED:
            del self._nodes.listed[next(iter(self._nodes.listed))]

    def _plus(self, parent: int, entry: DirEntry, given: list[int]) -> bytes:
        """Return what READDIRPLUS tells of one name; nothing of "." and ".." (the kernel takes no reference on them)."""
        name = entry.name
        if name in (b".", b".."):
            return codec.ENTRY_UNKNOWN
        try:
            found = self._fs_lookup(parent, name)
            told = self._entry(found, parent, name)
        except Exception as error:  # the list is good without it; a LOOKUP of the name will meet the error, and log it
            if isinstance(error, BudgetError) and error.errno == errno.ETIMEDOUT:
                raise  # or each further name would take its time again
            return codec.ENTRY_UNKNOWN
        given.append(found.node)
        return told

    # Extended attributes

    def _getxattr(self, node: int, size: int) -> Body:
        name = codec.name_in(self._request, BODY + abi.GETXATTR_IN.size, size)
        return codec.xattr_bytes(self._fs.getxattr(node, name), self._room())

    def _listxattr(self, node: int, _size: int) -> Body:
        names = codec.xattr_names(self._fs.listxattr(node))
        if abi.IN_HEADER.unpack_from(self._request)[
            4
        ]:  # not root's request: the kernel would refuse to read these (xattr(7))
            names = b"".join(name + b"\0" for name in names.split(b"\0")[:-1] if not name.startswith(b"trusted."))
        return codec.xattr_bytes(names, self._room())

    def _room(self) -> int:
        room: int = abi.GETXATTR_IN.unpack_from(self._request, BODY)[0]
        return room
