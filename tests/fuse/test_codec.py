"""Golden bytes, and every check of a reply by itself."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, TypeVar, cast

import pytest

from fuservice.fuse import abi, codec
from fuservice.fuse.codec import BadAnswerError, MalformedRequestError, Policy
from fuservice.fuse.filesystem import Attr, DirEntry, Entry, Opened, StatFs

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the checks raise, and what packing raises for a wrong type or an integer that does not fit.
REFUSED = (BadAnswerError, TypeError, struct.error)
T = TypeVar("T")
STRICT, LAX = Policy(), Policy(allow_suid=True, allow_dev=True)


def changed(value: T, **changes: object) -> T:
    """Return *value* with *changes* that its constructor's types would not let through."""
    for name, wild in changes.items():
        setattr(value, name, wild)
    return value


def attr(**changes: object) -> Attr:
    """Return the attributes of a plain file, with *changes*."""
    return changed(Attr(ino=5, mode=0o100644), **changes)


def word(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little")


def test_attributes_byte_by_byte() -> None:
    packed = codec.attr_bytes(
        attr(
            size=0x1122334455, blocks=9, nlink=3, uid=1000, gid=0xFFFFFFFE, rdev=0, blksize=1024,
            atime_ns=1_500_000_001, mtime_ns=-1, ctime_ns=(1 << 33) * 10**9,
        ), STRICT,
    )  # fmt: skip
    assert packed == (
        word(5, 8)  # ino
        + word(0x1122334455, 8)  # size
        + word(9, 8)  # blocks
        + word(1, 8)  # atime
        + b"\xff" * 8  # mtime: one nanosecond before 1970 is second -1…
        + word(1 << 33, 8)  # ctime
        + word(500_000_001, 4)  # atimensec
        + word(999_999_999, 4)  # mtimensec: …and 999,999,999 ns
        + word(0, 4)  # ctimensec
        + word(0o100644, 4)  # mode
        + word(3, 4)  # nlink
        + word(1000, 4)  # uid
        + word(0xFFFFFFFE, 4)  # gid
        + word(0, 4)  # rdev
        + word(1024, 4)  # blksize
        + word(0, 4)  # flags
    )


def test_entry_byte_by_byte() -> None:
    child = attr()
    entry = Entry(77, child, generation=2, entry_timeout_ns=1_000_000_002, attr_timeout_ns=3)
    assert codec.entry_bytes(entry, STRICT) == (
        word(77, 8) + word(2, 8) + word(1, 8) + word(0, 8) + word(2, 4) + word(3, 4) + codec.attr_bytes(child, STRICT)
    )


def test_dirent_byte_by_byte() -> None:
    assert codec.dirent_bytes(DirEntry(b"name", 7, 0o040000, 9)) == (
        word(7, 8) + word(9, 8) + word(4, 4) + word(4, 4) + b"name\0\0\0\0"
    )
    assert len(codec.dirent_bytes(DirEntry(b"12345678", 7, 0, 9))) == 32  # no padding


def test_statx_has_the_time_of_birth() -> None:
    packed = codec.statx_bytes(attr(btime_ns=-1_000_000_001, rdev=0x12345, size=6), LAX, 10**9 + 1)
    assert packed[:16] == word(1, 8) + word(1, 4) + word(0, 4)
    stat = packed[32:]
    assert stat[:4] == word(abi.STATX_BASIC_STATS | abi.STATX_BTIME, 4)
    assert stat[28:30] == word(0o100644, 2)
    assert stat[80:96] == (-2).to_bytes(8, "little", signed=True) + word(999_999_999, 4) + word(0, 4)
    assert stat[128:136] == word(0x123, 4) + word(0x45, 4)  # major, minor
    assert codec.statx_bytes(attr(), LAX, 0)[32:36] == word(abi.STATX_BASIC_STATS, 4)


def test_opened_statfs_lseek_xattr_byte_by_byte() -> None:
    assert codec.opened_bytes(Opened(1 << 40, abi.Fopen.KEEP_CACHE)) == word(1 << 40, 8) + word(2, 4) + word(0, 4)
    st = StatFs(blocks=1, bfree=2, bavail=3, files=4, ffree=5, bsize=6, frsize=7, namelen=8)
    assert codec.statfs_bytes(st) == (
        b"".join(word(n, 8) for n in (1, 2, 3, 4, 5)) + b"".join(word(n, 4) for n in (6, 8, 7)) + bytes(28)
    )
    assert codec.lseek_bytes(9, 3) == word(9, 8)
    assert codec.xattr_bytes(b"value", 0) == word(5, 4) + word(0, 4)
    assert codec.xattr_bytes(b"value", 5) == b"value"
    assert codec.xattr_names([b"user.a", b"user.b"]) == b"user.a\0user.b\0"


@pytest.mark.parametrize(
    "changes",
    [
        {"ino": 0}, {"ino": -1}, {"ino": 1 << 64}, {"ino": 1.5}, {"ino": None},
        {"size": -1}, {"size": 1 << 63}, {"blocks": -1}, {"blocks": 1 << 63}, {"size": "7"},
        {"mode": 0o644}, {"mode": 0o170644}, {"mode": 0o1100644}, {"mode": -1},
        {"atime_ns": 10**28}, {"mtime_ns": -(10**28)}, {"nlink": -1}, {"nlink": 1 << 32}, {"uid": 1 << 32}, {"gid": -1},
        {"rdev": 1 << 32}, {"blksize": 0}, {"blksize": 1000}, {"blksize": 1 << 30}, {"ino": 10**5000},
    ],
)  # fmt: skip
def test_attributes_that_do_not_pass(changes: dict[str, object]) -> None:
    wild = attr(**changes)
    with pytest.raises(REFUSED):
        codec.attr_bytes(wild, LAX)
    assert wild.packed is None


@pytest.mark.parametrize("mode", [0o106755, 0o104000, 0o102711])
def test_set_id_bits_of_files_are_shown_only_if_asked(mode: int) -> None:
    assert abi.ATTR.unpack(codec.attr_bytes(attr(mode=mode), STRICT))[9] == mode & ~0o6000
    assert abi.ATTR.unpack(codec.attr_bytes(attr(mode=mode), LAX))[9] == mode
    assert codec.statx_bytes(attr(mode=mode), STRICT, 0)[60:62] == word(mode & ~0o6000, 2)


def test_a_directory_keeps_its_set_group_id_bit() -> None:
    assert abi.ATTR.unpack(codec.attr_bytes(attr(mode=0o042755), STRICT))[9] == 0o042755


@pytest.mark.parametrize("kind", [abi.S_IFBLK, abi.S_IFCHR])
def test_device_nodes_are_shown_only_if_asked(kind: int) -> None:
    node = attr(mode=kind | 0o666, rdev=0x103)
    for refuse in (codec.attr_bytes, codec.statx_bytes):
        arguments = (node, STRICT) if refuse is codec.attr_bytes else (node, STRICT, 0)
        with pytest.raises(PermissionError) as caught:
            cast("Callable[..., bytes]", refuse)(*arguments)
        assert caught.value.errno == errno.EPERM
    assert abi.ATTR.unpack(codec.attr_bytes(node, LAX))[13] == 0x103
    assert codec.dirent_bytes(DirEntry(b"sda", 5, kind, 1))  # its name is


@pytest.mark.parametrize("node", [0, 1, -1, 1 << 64, None, "2", 2.5])
def test_nodes_that_do_not_pass(node: object) -> None:
    with pytest.raises(REFUSED):
        codec.entry_bytes(changed(Entry(5, attr()), node=node), STRICT)


@pytest.mark.parametrize("ns", [-1, 1 << 63, None, "1", [0]])
def test_timeouts_that_do_not_pass(ns: object) -> None:
    for which in ("entry_timeout_ns", "attr_timeout_ns"):
        with pytest.raises(REFUSED):
            codec.entry_bytes(changed(Entry(5, attr()), **{which: ns}), STRICT)


def test_a_timeout_is_judged_by_itself() -> None:
    """Not by one that was equal to it, and passed."""
    assert codec.entry_bytes(Entry(2, attr(), entry_timeout_ns=7, attr_timeout_ns=7), STRICT)
    for which in ("entry_timeout_ns", "attr_timeout_ns"):
        with pytest.raises(BadAnswerError, match=r"timeout is 7\.0"):
            codec.entry_bytes(changed(Entry(2, attr()), **{which: 7.0}), STRICT)


@pytest.mark.parametrize("name", [b"", b"a/b", b"/", b"a\0", b"x" * 256, "text", None, bytearray(b"a")])
def test_names_that_do_not_pass(name: object) -> None:
    with pytest.raises(BadAnswerError, match="name"):
        codec.dirent_bytes(changed(DirEntry(b"a", 5, 0, 1), name=name))
    with pytest.raises(BadAnswerError, match="name"):
        codec.xattr_names(cast("list[bytes]", [name]))


@pytest.mark.parametrize("entry", [(b"a", 0, 0, 1), (b"a", 5, 0, 0), (b"a", 5, 0, 1 << 63), (b"a", 5, 0o030000, 1), (b"a", 5, 8, 1)])  # fmt: skip
def test_directory_entries_that_do_not_pass(entry: tuple[bytes, int, int, int]) -> None:
    with pytest.raises(BadAnswerError):
        codec.dirent_bytes(DirEntry(*entry))


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 4096, "text", None])
def test_link_targets_that_do_not_pass(target: object) -> None:
    with pytest.raises(BadAnswerError, match="link target"):
        codec.link_bytes(target)
    assert codec.link_bytes(b"x" * 4095)


def test_data_that_does_not_pass() -> None:
    for wild in (b"12345", memoryview(b"12345678")[::2], memoryview(bytes(16)).cast("Q")):
        with pytest.raises(BadAnswerError, match="read gave"):
            codec.data_view(wild, 4)
    with pytest.raises(TypeError):
        codec.data_view(cast("bytes", "text"), 4)
    for odd in (memoryview(bytes(4)).cast("I"), memoryview(bytes(4)).cast("B", (2, 2))):
        assert len(codec.data_view(odd, 4)) == 4


def test_open_flags_that_do_not_pass() -> None:
    with pytest.raises(BadAnswerError, match="open flags"):
        codec.opened_bytes(Opened(0, 1 << 7))  # PASSTHROUGH
    with pytest.raises(REFUSED):
        codec.opened_bytes(Opened(-1))


def test_extended_attributes_that_do_not_pass() -> None:
    with pytest.raises(BadAnswerError, match="xattr"):
        codec.xattr_bytes(bytes(65537), 0)
    with pytest.raises(OSError, match="small") as caught:
        codec.xattr_bytes(b"value", 4)
    assert caught.value.errno == errno.ERANGE
    with pytest.raises(OSError, match="many") as caught:
        codec.xattr_names(b"user.%d" % i for i in range(10**9))
    assert caught.value.errno == errno.E2BIG


def test_lseek_goes_forwards() -> None:
    for found in (2, 1 << 63, -1):
        with pytest.raises(BadAnswerError, match="offset"):
            codec.lseek_bytes(found, 3)


@pytest.mark.parametrize(
    ("number", "answer"),
    [(1, 1), (511, 511), (512, 0), (4095, 0), (0, 0), (-5, 0), (10**30, 0), (None, 0), ("5", 0)],
)
def test_errors_that_the_kernel_takes(number: object, answer: int) -> None:
    assert codec.errno_of(OSError(number, "text")) == answer


@pytest.mark.parametrize("tail", [b"", b"\0", b"name", b"na\0me\0"])
def test_requests_without_a_name(tail: bytes) -> None:
    raw = bytearray(bytes(40) + tail)
    with pytest.raises(MalformedRequestError, match="not terminated"):
        codec.child_name_in(raw, len(raw))


def test_names_in_requests() -> None:
    for name in (b".", b"..", b"a/b"):
        raw = bytearray(bytes(40) + name + b"\0")
        with pytest.raises(MalformedRequestError, match="cannot be a child"):
            codec.child_name_in(raw, len(raw))
    long = bytearray(bytes(40) + b"x" * 256 + b"\0")
    with pytest.raises(OSError, match="too long") as caught:
        codec.child_name_in(long, len(long))
    assert caught.value.errno == errno.ENAMETOOLONG


def test_shown_survives_every_value() -> None:
    class Wild:
        def __repr__(self) -> str:
            raise RecursionError

    assert codec.shown(Wild()) == "<Wild>"
    assert codec.shown(10**5000) == "<int>"
    assert codec.shown(b"x" * 5000) == repr(b"x" * 198)[:-1]
