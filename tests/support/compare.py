"""Two trees, entry by entry: what differs between what one filesystem server shows and what another does.

Names are bytes and directories are walked by descriptor, so neither odd names nor paths longer than PATH_MAX stop it.
An error is a value like any other: where one side says EIO, the other side must too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import resource
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Compared unless told otherwise. "same_file" is the first path of the same inode: hard links, whatever the inode number.
FIELDS = ("type", "mode", "uid", "gid", "nlink", "rdev", "size", "mtime_ns", "target", "xattrs", "sha256", "same_file")
#: Compared when asked for.
MORE_FIELDS = ("atime_ns", "ctime_ns", "blocks", "data", "ino")

HUGE = 1 << 30
ZEROS = bytes(1 << 20)

Facts = dict[str, object]

KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "char device", stat.S_IFBLK: "block device",
}  # fmt: skip


@dataclass
class Comparison:
    """What was compared, and what differs, one line each."""

    entries: int = 0
    bytes: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def compare(left: Path, right: Path, also: Collection[str] = (), without: Collection[str] = ()) -> Comparison:
    """Compare the trees *left* and *right* in FIELDS, *also* in some of MORE_FIELDS, *without* some."""
    wanted = tuple(name for name in (*FIELDS, *also) if name not in without)
    lefts, rights = (dict(walk(top, wanted)) for top in (left, right))
    return compare_facts(lefts, rights, (os.fspath(left), os.fspath(right)))


def compare_facts(
    lefts: Mapping[bytes, Facts], rights: Mapping[bytes, Facts], names: tuple[str, str] = ("the first", "the second")
) -> Comparison:
    """Compare what was gathered of two trees, which are called *names*."""
    result = Comparison()
    for path in sorted(lefts.keys() | rights.keys()):
        if path not in lefts or path not in rights:
            result.differences.append(f"{shown(path)}: only in {names[path not in lefts]}")
            continue
        ours, theirs = lefts[path], rights[path]
        result.entries += 1
        kind = str(ours.get("type"))
        result.kinds[kind] = result.kinds.get(kind, 0) + 1
        size = ours.get("size", 0)
        result.bytes += size if kind == "file" and isinstance(size, int) else 0
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                result.differences.append(f"{shown(path)}: {name}: {ours.get(name)!r}, not {theirs.get(name)!r}")
    return result


def shown(path: bytes) -> str:
    """Return *path* for a message."""
    return path.decode("utf-8", "backslashreplace").replace("\n", "\\n") or "."


def walk(top: Path, wanted: Collection[str]) -> Iterator[tuple[bytes, Facts]]:
    """Yield the path below *top* and the facts of every entry, *top* itself (as b"") first. Stays on one filesystem."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one descriptor for each level
    seen: dict[int, bytes] = {}
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield b"", _facts(root, b".", b"", wanted, seen)
        yield from _walk_directory(root, b"", wanted, seen)
    finally:
        os.close(root)


def _walk_directory(
    fd: int, path: bytes, wanted: Collection[str], seen: dict[int, bytes]
) -> Iterator[tuple[bytes, Facts]]:
    stack: list[tuple[int, bytes, list[bytes]]] = [(fd, path, _names(fd))]
    try:
        while stack:
            parent, where, names = stack[-1]
            if not names:
                if len(stack) > 1:
                    os.close(parent)
                stack.pop()
                continue
            name = names.pop()
            inner = where + b"/" + name if where else name
            facts = _facts(parent, name, inner, wanted, seen)
            yield inner, facts
            if facts.get("type") == "directory":
                _descend(stack, parent, name, inner)
    finally:
        for open_fd, _, _ in stack[1:]:
            os.close(open_fd)


def _descend(stack: list[tuple[int, bytes, list[bytes]]], parent: int, name: bytes, path: bytes) -> None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return  # _facts has it as "listing"
    stack.append((fd, path, _names(fd)))


def _names(fd: int) -> list[bytes]:
    try:
        return sorted((os.fsencode(name) for name in os.listdir(fd)), reverse=True)
    except OSError:
        return []  # _facts has it as "listing"


def _facts(parent: int, name: bytes, path: bytes, wanted: Collection[str], seen: dict[int, bytes]) -> Facts:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0)}
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "unknown")
    facts: Facts = {"type": kind, "mode": oct(stat.S_IMODE(status.st_mode)), "size": status.st_size}
    for key in ("uid", "gid", "nlink", "rdev", "mtime_ns", "atime_ns", "ctime_ns", "blocks", "ino"):
        facts[key] = getattr(status, f"st_{key}")
    if kind != "directory":
        facts["same_file"] = seen.setdefault(status.st_ino, path)
    facts = {key: value for key, value in facts.items() if key in wanted or key == "type"}
    return facts | _contents(parent, name, kind, wanted)


def _contents(parent: int, name: bytes, kind: str, wanted: Collection[str]) -> Facts:
    """Return what an entry holds: bytes, target, attributes, the number of names."""
    facts: Facts = {}
    way = b"/proc/self/fd/%d/%s" % (parent, name)  # the only way to a symlink's attributes
    if "xattrs" in wanted:
        facts["xattrs"] = _try(_xattrs, way)
    if kind == "symlink" and "target" in wanted:
        facts["target"] = _try(os.readlink, way)
    if kind == "file" and "data" in wanted:  # before reading: the kernel calls unwritten space data once it is cached
        facts["data"] = _try(_data, way)
    if kind == "file" and "sha256" in wanted:
        facts["sha256"] = _try(_digest, way)
    if kind == "directory":
        facts["listing"] = _try(_count, way)
    return facts


def _try(look: Callable[[bytes], object], way: bytes) -> object:
    try:
        return look(way)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0)


def _xattrs(way: bytes) -> dict[str, bytes]:
    return {
        name: os.getxattr(way, name, follow_symlinks=False) for name in sorted(os.listxattr(way, follow_symlinks=False))
    }


def _digest(way: bytes) -> str:
    """Return the sha256 of a file's bytes. Of a huge one, every byte is read, but a mebibyte of zeros is hashed as "0"."""
    with open(way, "rb", buffering=0, opener=_open) as file:
        if os.fstat(file.fileno()).st_size < HUGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, buffer = hashlib.sha256(), bytearray(1 << 20)
        while size := file.readinto(buffer):
            digest.update(b"0" if buffer == ZEROS and size == len(ZEROS) else memoryview(buffer)[:size])
        return digest.hexdigest()


def _open(way: str, flags: int) -> int:
    return os.open(way, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _count(way: bytes) -> int:
    """Return the number of names in a directory; a name that is listed twice counts twice."""
    return len(os.listdir(way))


def _data(way: bytes) -> list[tuple[int, int]]:
    """Return the ranges of a file that hold data, as SEEK_DATA and SEEK_HOLE tell them: lseek(2)."""
    fd = os.open(way, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    ranges = []
    try:
        end = 0
        while True:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            ranges.append((start, end))
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data behind this point
            raise
        return ranges
    finally:
        os.close(fd)


if __name__ == "__main__":  # as another user: see tests/support/user.py
    sys.stdout.buffer.write(pickle.dumps(dict(walk(Path(sys.argv[1]), (*FIELDS, *MORE_FIELDS)))))
