"""What a filesystem shows, entry by entry, from either side: our driver's methods, or the kernel's mount of the same image.

An error is a value like any other, an :class:`Errno`. :func:`survey` is bounded, for images that are damaged on purpose:
it stops after so many entries and bytes, and enters no directory twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from fuservice.fuse.filesystem import ROOT_NODE, Attr, Filesystem

Handle = TypeVar("Handle")
Facts = dict[str, object]
View = dict[bytes, Facts]

MOST_NAMES = 150_000  # of one directory
MOST_LOOKED_AT = 2_500  # of one directory: the first ones by name, so that both sides look at the same
MOST_ENTRIES = 20_000
MOST_BYTES = 1 << 30
WHOLE = 32 << 20  # a file up to this size is read whole, a larger one around the edges of its data
MOST_SEGMENTS = 3000
CHUNK = 1 << 20


class Errno(NamedTuple):
    """A refusal, where a value would be."""

    number: int

    def __repr__(self) -> str:
        return errno.errorcode.get(self.number, str(self.number))


def attempt(ask: Callable[[], object]) -> object:
    """Return what *ask* returns, or its OSError as an Errno."""
    try:
        return ask()
    except OSError as error:
        return Errno(error.errno or 0)


class OpenFile(Protocol):
    """A file that can be read at an offset; ends with its ``with``."""

    def seek(self, offset: int, whence: int) -> int: ...
    def read(self, offset: int, length: int) -> bytes: ...


class Tree(Protocol[Handle]):
    """One side."""

    def root(self) -> Handle: ...
    def child(self, parent: Handle, name: bytes) -> Handle: ...
    def names(self, directory: Handle) -> tuple[list[tuple[bytes, int]], int]: ...
    def status(self, handle: Handle) -> dict[str, object]: ...
    def link(self, handle: Handle) -> bytes: ...
    def xattrs(self, handle: Handle) -> dict[bytes, object]: ...
    def opened(self, handle: Handle) -> contextlib.AbstractContextManager[OpenFile]: ...
    def space(self) -> dict[str, int]: ...


# Our side


#: What an engine lends to read(): whatever was in it must not be seen again.
BUFFER = memoryview(bytearray(b"\xa5" * CHUNK))


class ServedFile:
    def __init__(self, filesystem: Filesystem, node: int) -> None:
        self._filesystem, self._node = filesystem, node

    def seek(self, offset: int, whence: int) -> int:
        return self._filesystem.lseek(self._node, 0, offset, whence)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._filesystem.read(self._node, 0, offset, BUFFER[:length]))


class Served:
    """A filesystem of ours, asked in this process as the engine would."""

    def __init__(self, filesystem: Filesystem) -> None:
        self.filesystem = filesystem

    def root(self) -> int:
        return ROOT_NODE

    def child(self, parent: int, name: bytes) -> int:
        entry = self.filesystem.lookup(parent, name)
        assert self.filesystem.getattr(entry.node) is entry.attr
        return entry.node

    def names(self, directory: int) -> tuple[list[tuple[bytes, int]], int]:
        """List as the kernel does, some entries at a time, each time from the last cookie."""
        found: list[tuple[bytes, int]] = []
        cookie, failure, more = 0, 0, True
        while more and len(found) < MOST_NAMES:
            more = False
            try:
                for entry in self.filesystem.readdir(directory, 0, cookie):
                    found.append((entry.name, entry.ino))
                    cookie, more = entry.offset, True
                    if len(found) % 100 == 0:
                        break
            except OSError as error:
                failure = error.errno or 0
        return [pair for pair in found if pair[0] not in (b".", b"..")], failure

    def status(self, handle: int) -> dict[str, object]:
        attr = self.filesystem.getattr(handle)
        return {name: getattr(attr, name) for name in Attr.__slots__ if name != "packed"}

    def link(self, handle: int) -> bytes:
        return self.filesystem.readlink(handle)

    def xattrs(self, handle: int) -> dict[bytes, object]:
        names = list(self.filesystem.listxattr(handle))
        assert len(names) == len(set(names))
        return {name: attempt(lambda name=name: self.filesystem.getxattr(handle, name)) for name in names}  # type: ignore[misc]

    @contextlib.contextmanager
    def opened(self, handle: int) -> Iterator[OpenFile]:
        try:
            self.filesystem.open(handle, os.O_RDONLY)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # that one means: open it yourself
                raise
        yield ServedFile(self.filesystem, handle)

    def space(self) -> dict[str, int]:
        known = self.filesystem.statfs()
        return {name: getattr(known, name) for name in type(known).__slots__}


# The kernel's side


class KernelFile:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def seek(self, offset: int, whence: int) -> int:
        return os.lseek(self._fd, offset, whence)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)


_statx = ctypes.CDLL(None, use_errno=True)["statx"]
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME = -100, 0x100, 0x800


def birth(path: bytes) -> int | None:
    """Return stx_btime of *path* in ns, None where the kernel gives none: statx(2)."""
    buffer = ctypes.create_string_buffer(256)
    if _statx(_AT_FDCWD, path, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    (mask,) = struct.unpack_from("=I", buffer.raw, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer.raw, 80)
    return int(seconds * 10**9 + nanoseconds) if mask & _STATX_BTIME else None


class Mounted:
    """The kernel's mount at *point*; handles are paths."""

    def __init__(self, point: str) -> None:
        self._point = os.fsencode(point)

    def root(self) -> bytes:
        return self._point

    def child(self, parent: bytes, name: bytes) -> bytes:
        path = parent + b"/" + name
        os.lstat(path)
        return path

    def names(self, directory: bytes) -> tuple[list[tuple[bytes, int]], int]:
        found: list[tuple[bytes, int]] = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    found.append((entry.name, entry.inode()))
                    if len(found) >= MOST_NAMES:
                        break
        except OSError as error:
            return found, error.errno or 0
        return found, 0

    def status(self, handle: bytes) -> dict[str, object]:
        s = os.lstat(handle)
        return {
            "ino": s.st_ino, "mode": s.st_mode, "nlink": s.st_nlink, "uid": s.st_uid, "gid": s.st_gid, "rdev": s.st_rdev,
            "size": s.st_size, "blocks": s.st_blocks, "blksize": s.st_blksize, "atime_ns": s.st_atime_ns,
            "mtime_ns": s.st_mtime_ns, "ctime_ns": s.st_ctime_ns, "btime_ns": birth(handle),
        }  # fmt: skip

    def link(self, handle: bytes) -> bytes:
        return os.readlink(handle)  # noqa: PTH115  # Path would tidy the target up

    def xattrs(self, handle: bytes) -> dict[bytes, object]:
        names = [os.fsencode(name) for name in os.listxattr(handle, follow_symlinks=False)]
        return {name: attempt(lambda n=name: os.getxattr(handle, n, follow_symlinks=False)) for name in names}  # type: ignore[misc]

    @contextlib.contextmanager
    def opened(self, handle: bytes) -> Iterator[OpenFile]:
        fd = os.open(handle, os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC)
        try:
            os.posix_fadvise(
                fd, 0, 0, os.POSIX_FADV_DONTNEED
            )  # read by another of its names: cached zeros count as data
            yield KernelFile(fd)
        finally:
            os.close(fd)

    def space(self) -> dict[str, int]:
        s = os.statvfs(self._point)
        return {
            "bsize": s.f_bsize, "frsize": s.f_frsize, "blocks": s.f_blocks, "bfree": s.f_bfree, "bavail": s.f_bavail,
            "files": s.f_files, "ffree": s.f_ffree, "namelen": s.f_namemax,
        }  # fmt: skip


# Both


def survey(tree: Tree[Handle]) -> View:
    """Return all that *tree* shows: path → facts. The entry "" is the root; its fact "space" is statfs."""
    view: View = {}
    budget = [MOST_BYTES]
    pending = [(b"", tree.root())]
    entered: set[object] = set()
    view[b""] = {**look(tree, pending[0][1], budget), "space": tree.space()}
    while pending and len(view) < MOST_ENTRIES:
        path, directory = pending.pop()
        names, failure = tree.names(directory)
        names.sort()
        view[path]["names"] = names
        if failure:
            view[path]["listing"] = Errno(failure)
        for name, _ino in names[:MOST_LOOKED_AT]:
            below = path + b"/" + name
            try:
                handle = tree.child(directory, name)
            except OSError as error:
                view[below] = {"found": Errno(error.errno or 0)}
                continue
            facts = view[below] = look(tree, handle, budget)
            if "names" in facts and facts["ino"] not in entered and len(below) < 3500:
                entered.add(facts["ino"])
                pending.append((below, handle))
    return view


def look(tree: Tree[Handle], handle: Handle, budget: list[int]) -> Facts:
    """Return the facts of one object; a directory's "names" are left for later."""
    try:
        facts = tree.status(handle)
    except OSError as error:
        return {"found": Errno(error.errno or 0)}
    mode = facts["mode"]
    assert isinstance(mode, int)
    facts["xattrs"] = attempt(lambda: tree.xattrs(handle))
    if stat.S_ISLNK(mode):
        facts["link"] = attempt(lambda: tree.link(handle))
    elif stat.S_ISDIR(mode):
        facts["names"] = []
    elif stat.S_ISREG(mode):
        size = facts["size"]
        assert isinstance(size, int)
        try:
            with tree.opened(handle) as file:
                facts["map"] = attempt(lambda: segments(file, size))
                facts["data"] = attempt(lambda: digest(file, size, facts["map"], budget))
        except OSError as error:
            facts["data"] = Errno(error.errno or 0)
    return facts


def segments(file: OpenFile, size: int) -> list[tuple[int, int]]:
    """Return where the data are, by SEEK_DATA and SEEK_HOLE. (Before anything is read: the kernel takes cached zeros for data.)"""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size and len(found) < MOST_SEGMENTS:
        try:
            start = file.seek(at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        at = file.seek(start, os.SEEK_HOLE)
        assert at > start
        found.append((start, at))
    return found


def digest(file: OpenFile, size: int, where: object, budget: list[int]) -> str:
    """Return the digest of the data, in reads of odd lengths; of a large file, only of what surrounds its data."""
    if size <= WHOLE:
        regions = [(0, size)]
    else:
        edges = where[:200] if isinstance(where, list) else []
        regions = [(max(0, a - 5000), min(b + 5000, a + (4 << 20), size)) for a, b in edges] + [
            (size - 5000, size + 99)
        ]
    total = hashlib.sha256()
    for start, end in regions:
        at = start
        while at < end and budget[0] > 0:
            piece = file.read(at, min(CHUNK - 7, end - at))
            if not piece:
                break
            total.update(piece)
            at += len(piece)
            budget[0] -= len(piece)
        total.update(b"%d" % at)
    return total.hexdigest()


def differences(ours: View, theirs: View, *, forgiving: bool = False) -> list[str]:
    """Return one line per difference; *forgiving*: only where both sides have a value, not an error."""
    lines = []
    for path in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(path), theirs.get(path)
        if a is None or b is None:
            if not forgiving:
                lines.append(f"{path!r}: only {'the kernel' if a is None else 'we'} show it")
            continue
        if forgiving:
            a, b = both_sound(a, b), both_sound(b, a)
        lines += [
            f"{path!r}: {name}: {shorten(a.get(name))}, the kernel: {shorten(b.get(name))}"
            for name in sorted(a.keys() | b.keys())
            if a.get(name) != b.get(name)
        ]
    return lines


def both_sound(facts: Facts, other: Facts) -> Facts:
    """Return those of *facts* that neither side has as an error, or lacks because of one."""
    kept: Facts = {}
    for name, value in facts.items():
        counterpart = other.get(name, Errno(0))
        if (
            isinstance(value, Errno)
            or isinstance(counterpart, Errno)
            or (name == "names" and "listing" in facts | other)
        ):
            continue
        if isinstance(value, dict) and isinstance(counterpart, dict):
            value = both_sound(value, counterpart)
        kept[name] = value
    return kept


def shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) < 300 else text[:300] + "…"


def errors(view: View) -> list[str]:
    """Return what could not be shown, one line each."""
    lines = []
    for path, facts in view.items():
        lines += [f"{path!r}: {name}: {value!r}" for name, value in facts.items() if isinstance(value, Errno)]
        values = facts.get("xattrs")
        if isinstance(values, dict):
            lines += [f"{path!r}: {name!r}: {value!r}" for name, value in values.items() if isinstance(value, Errno)]
    return lines
