"""The session against a kernel made of a socket: negotiation, each operation, failures, and its end."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import File, Memtree, Special, Symlink
from fuservice.errors import RemoteProtocolError
from fuservice.fuse import abi, desk, session
from fuservice.fuse.abi import Init, Op
from fuservice.fuse.codec import Policy
from fuservice.fuse.filesystem import FOREVER
from tests.fuse.fakekernel import EVERY_FLAG, Kernel, init_body, names_in, read_body, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuservice.drivers.memtree import Inode, Tree

TREE: dict[str, bytes | Inode | Tree] = {
    "file": File(b"content", xattrs={b"user.a": b"1", b"user.b": b"22"}),
    "link": Symlink(b"file"),
    "sub": {"one": b"1", "two": b"2"},
    "disk": Special(abi.S_IFBLK, rdev=0x801),
    "sparse": File(size=10 << 20, extents={1 << 20: b"data"}),
}
FILE, LINK, SUB, DISK, SPARSE = range(2, 7)


class Recorder(Memtree):
    """A memtree that remembers what it was told."""

    def __init__(self, timeout_ns: int = 0) -> None:
        super().__init__(TREE, timeout_ns=timeout_ns)
        self.told: list[tuple[str, int]] = []

    def forget(self, node: int) -> None:
        self.told.append(("forget", node))

    def release(self, node: int, handle: int) -> None:
        self.told.append(("release", node))

    def releasedir(self, node: int, handle: int) -> None:
        self.told.append(("releasedir", node))

    def destroy(self) -> None:
        self.told.append(("destroy", 0))


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(Recorder()) as kernel:
        yield kernel


def told(kernel: Kernel) -> list[tuple[str, int]]:
    recorder = kernel.session._fs
    assert isinstance(recorder, Recorder)
    return recorder.told


def negotiated(body: bytes) -> dict[str, int]:
    names = (
        "major minor max_readahead flags background congestion max_write time_gran max_pages align flags2 depth timeout"
    )
    values = dict(zip(names.split(), abi.INIT_OUT.unpack(body), strict=False))
    values["flags"] |= values["flags2"] << 32
    return values


def test_init_with_this_kernel() -> None:
    with Kernel(Memtree({}), init=False) as kernel:
        reply = negotiated(kernel.ask(Op.INIT, 0, init_body()).body)
        assert (reply["major"], reply["minor"], reply["time_gran"]) == (7, 45, 1)
        assert reply["max_pages"] * os.sysconf("SC_PAGE_SIZE") == 1 << 20
        assert reply["max_write"] + 80 <= desk.REQUEST_SIZE
        assert reply["flags"] == session.WANTED
        assert kernel.session.minor == 45


def test_init_with_the_oldest_kernel() -> None:
    with Kernel(Memtree({}), init=False) as kernel:
        reply = negotiated(kernel.ask(Op.INIT, 0, init_body(31, Init.MAX_PAGES | Init.ASYNC_READ)).body)
        assert reply["minor"] == 31
        assert reply["flags"] == Init.MAX_PAGES | Init.ASYNC_READ


def test_init_never_takes_what_was_not_offered() -> None:
    with Kernel(Memtree({}, timeout_ns=FOREVER), init=False) as kernel:
        assert negotiated(kernel.ask(Op.INIT, 0, init_body(45, 0)).body)["flags"] == 0


def test_links_are_cached_where_nothing_changes() -> None:
    for timeout, cached in ((0, 0), (FOREVER, Init.CACHE_SYMLINKS)):
        with Kernel(Memtree({}, timeout_ns=timeout), init=False) as kernel:
            flags = negotiated(kernel.ask(Op.INIT, 0, init_body()).body)["flags"]
            assert flags & Init.CACHE_SYMLINKS == cached
            assert not flags & (Init.POSIX_ACL | Init.EXPORT_SUPPORT | Init.HANDLE_KILLPRIV | Init.PASSTHROUGH)


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (6, 99), (0, 0)])
def test_init_with_a_kernel_too_old(major: int, minor: int) -> None:
    with Kernel(Memtree({}), init=False) as kernel:
        with pytest.raises(RemoteProtocolError, match=rf"FUSE {major}\.{minor}, expected 7\.31"):
            kernel.step(request(Op.INIT, 0, init_body(minor, EVERY_FLAG, major)))
        assert struct.unpack("=IiQ", kernel._ours.recv(100)) == (16, -errno.EPROTO, 2)


def test_init_with_a_newer_major_is_done_over() -> None:
    with Kernel(Memtree({"a": b""}), init=False) as kernel:
        assert negotiated(kernel.ask(Op.INIT, 0, init_body(1, EVERY_FLAG, 8)).body)["major"] == 7
        assert kernel.ask(Op.LOOKUP, 1, b"a\0").error == errno.EINVAL  # still not begun
        assert kernel.ask(Op.INIT, 0, init_body()).error == 0
        assert kernel.ask(Op.LOOKUP, 1, b"a\0").error == 0


def test_lookup(kernel: Kernel) -> None:
    body = kernel.ask(Op.LOOKUP, 1, b"file\0").body
    assert abi.ENTRY_OUT.unpack(body)[0] == FILE
    assert abi.ATTR.unpack(body[40:])[:2] == (FILE, 7)
    assert kernel.ask(Op.LOOKUP, 1, b"none\0").error == errno.ENOENT
    assert kernel.ask(Op.LOOKUP, 1, b"disk\0").error == errno.EPERM
    assert kernel.ask(Op.LOOKUP, 1, b"x" * 256 + b"\0").error == errno.ENAMETOOLONG
    assert kernel.log == []


def test_what_never_changes_is_missing_for_ever() -> None:
    with Kernel(Memtree({}, timeout_ns=FOREVER)) as kernel:
        node, _, valid, *_ = abi.ENTRY_OUT.unpack(kernel.ask(Op.LOOKUP, 1, b"none\0").body)
        assert (node, valid) == (0, FOREVER // 10**9)
        assert len(kernel.session.nodes) == 0


def test_getattr_and_statx(kernel: Kernel) -> None:
    plain = kernel.ask(Op.GETATTR, FILE, bytes(16))
    assert abi.ATTR.unpack(plain.body[16:])[1] == 7
    assert kernel.ask(Op.STATX, FILE, bytes(24)).body[32 + 40 : 32 + 48] == (7).to_bytes(8, "little")
    assert kernel.ask(Op.GETATTR, DISK, bytes(16)).error == errno.EPERM
    assert kernel.ask(Op.GETATTR, 999, bytes(16)).error == errno.ESTALE


def test_reading(kernel: Kernel) -> None:
    assert kernel.ask(Op.OPEN, FILE, struct.pack("=II", os.O_RDONLY, 0)).error == 0
    assert kernel.ask(Op.READ, FILE, read_body(4096)).body == b"content"
    assert kernel.ask(Op.READ, FILE, read_body(3, 2)).body == b"nte"
    assert kernel.ask(Op.READ, FILE, read_body(4096, 7)).body == b""
    assert kernel.ask(Op.READ, SPARSE, read_body(8, (1 << 20) - 2)).body == b"\0\0data\0\0"
    assert kernel.ask(Op.READ, SPARSE, read_body(1 << 20)).body == bytes(1 << 20)
    assert kernel.ask(Op.READ, FILE, read_body((1 << 20) + 1)).error == errno.EINVAL
    assert kernel.ask(Op.READ, FILE, read_body(1, 1 << 63)).error == errno.EINVAL
    assert kernel.ask(Op.FLUSH, FILE, bytes(24)).error == errno.ENOSYS
    assert kernel.ask(Op.RELEASE, FILE, bytes(24)).error == 0
    assert told(kernel) == [("release", FILE)]


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, 3, os.O_RDONLY | os.O_TRUNC])
def test_opening_for_writing(kernel: Kernel, flags: int) -> None:
    assert kernel.ask(Op.OPEN, FILE, struct.pack("=II", flags, 0)).error == errno.EROFS


def test_ioctl() -> None:
    """What goes in and out; the sizes of both are those that the kernel has said."""
    asked: list[tuple[object, ...]] = []

    class Tells(Memtree):
        def control(self, node: int, handle: int, command: int, data: bytes, room: int) -> bytes:
            asked.append((node, handle, command, data, room))
            return b"four" if command == 1 else super().control(node, handle, command, data, room)

    def body(command: int, given: int, data: bytes, room: int) -> bytes:
        return struct.pack("=QIIQII", 5, 0, command, 0xDEAD, given, room) + data

    with Kernel(Tells(TREE)) as kernel:
        assert kernel.ask(Op.IOCTL, FILE, body(1, 3, b"abc", 4)).body == bytes(16) + b"four"
        assert kernel.ask(Op.IOCTL, FILE, body(1, 0, b"", 3)).error == errno.EIO  # the driver gives too much
        assert kernel.ask(Op.IOCTL, FILE, body(2, 0, b"", 3)).error == errno.ENOTTY
        assert len(asked) == 3
        assert asked[0] == (FILE, 5, 1, b"abc", 4)
        assert kernel.ask(Op.IOCTL, FILE, body(1, 4, b"abc", 4)).error == errno.EINVAL
        assert len(asked) == 3


def test_links_and_holes(kernel: Kernel) -> None:
    assert kernel.ask(Op.READLINK, LINK).body == b"file"
    for offset, whence, found in (
        (0, os.SEEK_DATA, 1 << 20),
        (0, os.SEEK_HOLE, 0),
        (1 << 20, os.SEEK_HOLE, (1 << 20) + 4),
    ):
        reply = kernel.ask(Op.LSEEK, SPARSE, struct.pack("=QQII", 0, offset, whence, 0))
        assert abi.LSEEK_OUT.unpack(reply.body) == (found,)
    assert kernel.ask(Op.LSEEK, SPARSE, struct.pack("=QQII", 0, 2 << 20, os.SEEK_DATA, 0)).error == errno.ENXIO
    assert kernel.ask(Op.LSEEK, SPARSE, struct.pack("=QQII", 0, 0, os.SEEK_CUR, 0)).error == errno.EINVAL


def test_listing(kernel: Kernel) -> None:
    names = [b".", b"..", *map(os.fsencode, TREE)]
    assert kernel.ask(Op.OPENDIR, 1, bytes(8)).error == 0
    assert [name for name, _ in names_in(kernel.ask(Op.READDIR, 1, read_body(4096)).body)] == names
    assert [name for name, _ in names_in(kernel.ask(Op.READDIR, 1, read_body(4096, 5)).body)] == names[5:]
    assert kernel.ask(Op.READDIR, 1, read_body(4096, len(names))).body == b""
    assert kernel.ask(Op.READDIR, 1, read_body(16)).error == errno.EINVAL  # as getdents(2): no room for one
    assert kernel.ask(Op.READDIR, FILE, read_body(4096)).error == errno.ENOTDIR
    assert kernel.ask(Op.RELEASEDIR, 1, bytes(24)).error == 0


def test_listing_with_attributes(kernel: Kernel) -> None:
    found = names_in(kernel.ask(Op.READDIRPLUS, 1, read_body(4096)).body, plus=True)
    assert found == [(b".", 0), (b"..", 0), (b"file", FILE), (b"link", LINK), (b"sub", SUB), (b"disk", 0), (b"sparse", SPARSE)]  # fmt: skip
    assert len(kernel.session.nodes) == 4
    kernel.ask(Op.READDIRPLUS, 1, read_body(160 * 3))  # room for three: only what fits is counted
    assert kernel.session.nodes._known[FILE][0] == 2
    assert kernel.session.nodes._known[LINK][0] == 1


def test_extended_attributes(kernel: Kernel) -> None:
    assert kernel.ask(Op.LISTXATTR, FILE, struct.pack("=II", 0, 0)).body == struct.pack("=II", 14, 0)
    assert kernel.ask(Op.LISTXATTR, FILE, struct.pack("=II", 14, 0)).body == b"user.a\0user.b\0"
    assert kernel.ask(Op.LISTXATTR, FILE, struct.pack("=II", 13, 0)).error == errno.ERANGE
    assert kernel.ask(Op.GETXATTR, FILE, struct.pack("=II", 64, 0) + b"user.b\0").body == b"22"
    assert kernel.ask(Op.GETXATTR, FILE, struct.pack("=II", 1, 0) + b"user.b\0").error == errno.ERANGE
    assert kernel.ask(Op.GETXATTR, FILE, struct.pack("=II", 64, 0) + b"user.c\0").error == errno.ENODATA


def test_attributes_that_root_alone_may_read_are_named_to_root_alone() -> None:
    """As by the kernel's own filesystems."""
    with Kernel(Memtree({"file": File(xattrs={b"trusted.a": b"1", b"user.b": b"2"})})) as kernel:
        (node,) = struct.unpack_from("=Q", kernel.ask(Op.LOOKUP, 1, b"file\0").body)
        ask = bytearray(request(Op.LISTXATTR, node, struct.pack("=II", 64, 0)))
        for uid, names in ((0, b"trusted.a\0user.b\0"), (1000, b"user.b\0")):
            struct.pack_into("=I", ask, 24, uid)
            reply = kernel.step(bytes(ask))
            assert reply is not None and reply.body == names


def test_what_is_not_offered(kernel: Kernel) -> None:
    for op in range(60, 0, -1):
        if op in desk.NO_REPLY or op == Op.DESTROY:
            continue
        reply = kernel.step(request(op, 1, bytes(64)))
        assert reply is not None
        if op in (Op.SETATTR, Op.MKDIR, Op.UNLINK, Op.RENAME2, Op.WRITE, Op.CREATE, Op.SETXATTR, Op.TMPFILE):
            assert reply.error == errno.EROFS
        if op in (7, Op.FSYNC, Op.POLL, Op.BMAP, Op.SYNCFS, Op.ACCESS, 54, 60):
            assert reply.error == errno.ENOSYS


def test_interrupt_has_no_answer(kernel: Kernel) -> None:
    kernel.tell(Op.INTERRUPT, 0, struct.pack("=Q", 2))


def test_forgetting(kernel: Kernel) -> None:
    for _ in range(3):
        kernel.ask(Op.LOOKUP, 1, b"file\0")
    kernel.ask(Op.LOOKUP, 1, b"link\0")
    kernel.tell(Op.FORGET, FILE, struct.pack("=Q", 2))
    assert told(kernel) == []
    kernel.tell(Op.BATCH_FORGET, 0, struct.pack("=II", 3, 0) + struct.pack("=6Q", FILE, 1, LINK, 1, 1, 99))
    assert told(kernel) == [("forget", FILE), ("forget", LINK)]
    kernel.tell(Op.FORGET, FILE, struct.pack("=Q", 1))  # not known any more
    kernel.tell(Op.BATCH_FORGET, 0, struct.pack("=II", 9, 0))
    assert kernel.log == ["BATCH_FORGET …/: BATCH_FORGET of 9 nodes in 0 bytes"]


@pytest.mark.parametrize("op", [Op.LOOKUP, Op.READDIRPLUS])
def test_nodes_that_were_not_delivered_do_not_count(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, op: int) -> None:
    kernel.ask(Op.LOOKUP, 1, b"file\0")

    def nobody(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOENT, "interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(desk, "_write", nobody)
        assert kernel.step(request(op, 1, b"link\0" if op == Op.LOOKUP else read_body(4096))) is None
    assert {node: known[0] for node, known in kernel.session.nodes._known.items()} == {FILE: 1}
    assert set(told(kernel)) == {
        ("forget", node) for node in ([LINK] if op == Op.LOOKUP else [LINK, SUB, DISK, SPARSE])
    }


def test_a_reply_that_the_kernel_refuses_becomes_eio(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def picky(fd: int, data: bytes) -> int:
        if len(data) > 16:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, data)

    monkeypatch.setattr(desk, "_write", picky)
    assert kernel.ask(Op.LOOKUP, 1, b"file\0").error == errno.EIO
    assert len(kernel.session.nodes) == 0
    assert kernel.log == ["LOOKUP /file: [Errno 5] the kernel refused the reply: Invalid argument"]


def asked_by(uid: int, op: int, body: bytes = b"") -> bytes:
    """Return a request of user *uid* about the root."""
    return abi.IN_HEADER.pack(abi.IN_HEADER.size + len(body), op, 2, 1, uid, uid, 1, 0, 0) + body


@pytest.mark.parametrize(("uid", "error"), [(0, 0), (1000, 0), (1001, errno.EACCES)])
def test_allow_root_is_for_root_and_the_owner(uid: int, error: int) -> None:
    with Kernel(Memtree({"file": b"x"}), Policy(only={0, 1000})) as kernel:
        for op, body in ((Op.LOOKUP, b"file\0"), (Op.GETATTR, bytes(16)), (Op.STATFS, b"")):
            reply = kernel.step(asked_by(uid, op, body))
            assert reply is not None and reply.error == error
        listing = kernel.step(asked_by(uid, Op.READDIR, read_body(4096)))
        assert listing is not None and listing.error == 0  # on a handle that the kernel gave: as with libfuse
        assert kernel.log == []


def test_debugging_logs_every_request() -> None:
    with Kernel(Memtree({"file": b"x"}), debug=True) as kernel:
        kernel.run(request(Op.LOOKUP, 1, b"file\0"), request(Op.STATFS))
        assert kernel.log == ["2: LOOKUP /file, 45 bytes", "2: STATFS /, 40 bytes"]
