"""memtree: what a description becomes."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from fuservice.drivers.memtree import Directory, File, Memtree, Special, Symlink
from fuservice.fuse import abi
from fuservice.fuse.filesystem import ROOT_NODE


def test_nodes_are_numbered_breadth_first() -> None:
    tree = Memtree({"d": {"x": b""}, "f": b"12", "l": Symlink(b"f")})
    assert [tree.lookup(ROOT_NODE, name).node for name in (b"d", b"f", b"l")] == [2, 3, 4]
    assert tree.lookup(2, b"x").node == 5
    assert stat.S_ISDIR(tree.getattr(ROOT_NODE).mode)


def test_two_names_of_one_object_are_hard_links() -> None:
    file = File(b"x")
    tree = Memtree({"a": file, "d": {"b": file}})
    assert tree.lookup(1, b"a").attr is tree.lookup(3, b"b").attr
    assert tree.getattr(2).nlink == 2
    assert [tree.getattr(node).nlink for node in (1, 3)] == [3, 2]


def test_entries_are_resumed_behind_their_cookie() -> None:
    tree = Memtree({"a": b"", "b": {}})
    entries = list(tree.readdir(1, 0, 0))
    assert [(e.name, e.kind, e.offset) for e in entries] == [
        (b".", abi.S_IFDIR, 1), (b"..", abi.S_IFDIR, 2), (b"a", abi.S_IFREG, 3), (b"b", abi.S_IFDIR, 4),
    ]  # fmt: skip
    assert [e.name for e in tree.readdir(1, 0, 3)] == [b"b"]
    assert list(tree.readdir(1, 0, 4)) == []


def test_files_are_read_with_their_holes() -> None:
    tree = Memtree({"s": File(size=20, extents={12: b"world", 3: b"hello"})})
    whole = b"\0\0\0hello\0\0\0\0world\0\0\0"
    for offset in range(25):
        for length in range(25):
            into = memoryview(bytearray(b"\xff" * length))
            assert bytes(tree.read(2, 0, offset, into)) == whole[offset : offset + length]
    assert tree.getattr(2).blocks == 2


@pytest.mark.parametrize(
    ("offset", "data", "hole"),
    [(0, 3, 0), (3, 3, 8), (7, 7, 8), (8, 12, 8), (12, 12, 17), (17, None, 17), (20, None, None)],
)
def test_data_and_holes_are_found(offset: int, data: int | None, hole: int | None) -> None:
    tree = Memtree({"s": File(size=20, extents={3: b"hello", 12: b"world"})})
    for whence, found in ((os.SEEK_DATA, data), (os.SEEK_HOLE, hole)):
        if found is None:
            with pytest.raises(OSError, match=f"Errno {errno.ENXIO}"):
                tree.lseek(2, 0, offset, whence)
        else:
            assert tree.lseek(2, 0, offset, whence) == found


def test_what_an_inode_has_is_shown() -> None:
    tree = Memtree({
        "f": File(b"x", mode=0o4711, uid=1, gid=2, mtime_ns=3, btime_ns=4, xattrs={b"user.a": b"b"}),
        "n": Special(abi.S_IFCHR, rdev=os.makedev(1, 3)), "d": Directory({}, mode=0o700),
    })  # fmt: skip
    attr = tree.getattr(2)
    assert (attr.mode, attr.uid, attr.gid, attr.mtime_ns, attr.btime_ns) == (0o104711, 1, 2, 3, 4)
    assert (tree.getxattr(2, b"user.a"), tree.listxattr(2)) == (b"b", [b"user.a"])
    assert tree.getattr(3).rdev == 0x103
    assert tree.getattr(4).mode == 0o040700


@pytest.mark.parametrize(
    ("ask", "number"),
    [
        (lambda t: t.lookup(1, b"none"), errno.ENOENT), (lambda t: t.getattr(99), errno.ESTALE),
        (lambda t: t.readlink(2), errno.EINVAL), (lambda t: t.readdir(2, 0, 0), errno.ENOTDIR),
        (lambda t: t.lseek(1, 0, 0, os.SEEK_DATA), errno.EISDIR), (lambda t: t.getxattr(2, b"user.x"), errno.ENODATA),
        (lambda t: t.read(1, 0, 0, memoryview(bytearray(1))), errno.EISDIR), (lambda t: t.readlink(99), errno.ESTALE),
    ],
)  # fmt: skip
def test_what_is_not_there(ask: object, number: int) -> None:
    assert callable(ask)
    with pytest.raises(OSError, match=rf"Errno {number}\b"):
        ask(Memtree({"f": b""}))
