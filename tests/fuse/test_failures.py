"""What a failing driver, a lying header and the end of the mount do to a session."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import Memtree
from fuservice.errors import ImageError
from fuservice.fuse.abi import Op
from fuservice.fuse.codec import MalformedRequestError
from fuservice.fuse.failures import MOST_LINES
from fuservice.fuse.filesystem import FOREVER, Attr, Entry, Filesystem, Opened
from tests.fuse.fakekernel import Kernel, names_in, read_body, request
from tests.fuse.test_session import FILE, Recorder, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuservice.fuse.filesystem import DirEntry


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(Recorder()) as kernel:
        yield kernel


class Broken(Memtree):
    """A memtree whose reading raises what it is told to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__({"dir": {"bad": b"x", "good": b"y"}})
        self.error = error

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        if node == 3:
            raise self.error
        return super().read(node, handle, offset, into)


def endless(depth: int = 0) -> int:
    return endless(depth + 1) + 1


def test_a_driver_that_fails_costs_one_request() -> None:
    with Kernel(Broken(ValueError("bad \x1b[2Jextent"))) as kernel:
        kernel.ask(Op.LOOKUP, 1, b"dir\0")
        kernel.ask(Op.LOOKUP, 2, b"bad\0")
        for _ in range(3):
            assert kernel.ask(Op.READ, 3, read_body(10)).error == errno.EIO
        assert kernel.ask(Op.READ, 4, read_body(10)).body == b"y"
        (line,) = kernel.log
        assert line.startswith(r"READ /dir/bad: ValueError('bad \\x1b[2Jextent') (test_failures.py:")


@pytest.mark.parametrize(
    ("error", "answer", "lines"),
    [
        (OSError(errno.EACCES, "no"), errno.EACCES, 0), (OSError(errno.EUCLEAN, "crc"), errno.EUCLEAN, 1),
        (OSError("text alone"), errno.EIO, 1), (OSError(512, "restart"), errno.EIO, 1), (OSError(-1, ""), errno.EIO, 1),
        (OSError(10**40, ""), errno.EIO, 1), (RecursionError(), errno.EIO, 1), (MemoryError(), errno.EIO, 1),
        (StopIteration(), errno.EIO, 1), (AssertionError(), errno.EIO, 1),
    ],
)  # fmt: skip
def test_exceptions_become_an_errno(error: Exception, answer: int, lines: int) -> None:
    with Kernel(Broken(error)) as kernel:
        assert kernel.ask(Op.READ, 3, read_body(10)).error == answer
        assert len(kernel.log) == lines


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_programs_is_let_through(error: BaseException) -> None:
    with Kernel(Broken(error)) as kernel, pytest.raises(type(error)):
        kernel.step(request(Op.READ, 3, read_body(10)))


class Deep(Filesystem):
    """Recursion without end, and the hunger for memory that goes with it."""

    def getattr(self, node: int) -> Attr:
        return Attr(ino=endless(), mode=0)

    def readlink(self, node: int) -> bytes:
        return bytes(1 << 62)

    def readdir(self, node: int, handle: int, offset: int) -> Iterator[DirEntry]:
        yield from self.readdir(node, handle, offset)


def test_a_sentence_about_the_image_is_logged_as_it_is() -> None:
    with Kernel(Broken(ImageError("inode 12: extent beyond the end"))) as kernel:
        assert kernel.ask(Op.READ, 3, read_body(10)).error == errno.EIO
        assert kernel.log == ["READ …/: inode 12: extent beyond the end"]


def test_recursion_and_hunger_are_survived() -> None:
    with Kernel(Deep()) as kernel:
        for op, body in ((Op.GETATTR, bytes(16)), (Op.READLINK, b""), (Op.READDIR, read_body(4096))):
            assert kernel.ask(op, 1, body).error == errno.EIO
        assert [line.split(":")[0] for line in kernel.log] == ["GETATTR /", "READLINK /", "READDIR /"]
        assert kernel.ask(Op.STATFS).error == 0


def test_a_damaged_directory_shows_what_is_good() -> None:
    class Torn(Memtree):
        def readdir(self, node: int, handle: int, offset: int) -> Iterator[DirEntry]:
            for entry in super().readdir(node, handle, offset):
                if entry.name == b"c":
                    raise OSError(errno.EUCLEAN, "torn")
                yield entry

    with Kernel(Torn({"a": b"", "b": b"", "c": b""})) as kernel:
        assert [name for name, _ in names_in(kernel.ask(Op.READDIR, 1, read_body(4096)).body)] == [
            b".",
            b"..",
            b"a",
            b"b",
        ]
        assert kernel.ask(Op.READDIR, 1, read_body(4096, 4)).error == errno.EUCLEAN


def test_the_log_has_an_end() -> None:
    class Bad(Filesystem):
        def lookup(self, parent: int, name: bytes) -> Entry:
            raise ValueError(name)

    with Kernel(Bad()) as kernel:
        for i in range(2 * MOST_LINES):
            assert kernel.ask(Op.LOOKUP, 1, b"%d\0" % i).error == errno.EIO
        assert len(kernel.log) == MOST_LINES + 1
        assert "not logged" in kernel.log[-1]


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("closed file"), MemoryError()])
def test_a_broken_log_is_survived(error: Exception) -> None:
    def gone(_line: str) -> None:
        raise error

    with Kernel(Broken(ValueError())) as kernel:
        kernel.session._failures._log = gone
        assert kernel.ask(Op.READ, 3, read_body(10)).error == errno.EIO


def test_a_forget_that_raises_is_survived() -> None:
    class Sore(Memtree):
        def forget(self, node: int) -> None:
            raise ValueError(node)

    with Kernel(Sore({"a": b""})) as kernel:
        kernel.ask(Op.LOOKUP, 1, b"a\0")
        kernel.tell(Op.FORGET, 2, struct.pack("=Q", 1))
        assert len(kernel.session.nodes) == 0
        assert len(kernel.log) == 1


def test_what_never_changes_and_needs_no_open_is_opened_by_the_kernel() -> None:
    class Still(Memtree):
        open, opendir = Filesystem.open, Filesystem.opendir

    with Kernel(Still({}, timeout_ns=FOREVER)) as kernel:
        assert kernel.ask(Op.OPEN, 1, bytes(8)).error == errno.ENOSYS
        assert kernel.ask(Op.OPENDIR, 1, bytes(8)).error == errno.ENOSYS
    with Kernel(Still({})) as kernel:
        assert kernel.ask(Op.OPEN, 1, bytes(8)).error == 0


def test_an_open_that_cannot_be_told_is_released() -> None:
    class Odd(Recorder):
        def open(self, node: int, flags: int) -> Opened:
            return Opened(7, 1 << 30)

    with Kernel(Odd()) as kernel:
        assert kernel.ask(Op.OPEN, FILE, bytes(8)).error == errno.EIO
        assert told(kernel) == [("release", FILE)]


def test_the_loop_ends_when_the_far_end_does(kernel: Kernel) -> None:
    replies = kernel.run(request(Op.GETATTR, 1, bytes(16)), request(Op.INTERRUPT, 1, bytes(8)), request(Op.STATFS))
    assert [reply.error for reply in replies] == [0, 0]
    assert told(kernel) == [("destroy", 0)]


def test_destroy_ends_the_loop_and_the_driver_closes_first(kernel: Kernel) -> None:
    replies = kernel.run(request(Op.DESTROY), request(Op.STATFS))
    assert [reply.error for reply in replies] == [0]
    assert told(kernel) == [("destroy", 0)]


def test_a_destroy_that_raises_is_logged(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.session._fs, "destroy", endless)
    kernel.run()
    assert kernel.log[0].startswith("DESTROY /: RecursionError")


@pytest.mark.parametrize(
    ("number", "lines"), [(errno.ENODEV, []), (errno.ECONNABORTED, ["the kernel's connection was aborted"])]
)
def test_the_loop_ends_with_the_mount(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: int, lines: list[str]
) -> None:
    trouble = [errno.EINTR, errno.ENOENT, errno.EAGAIN, number]

    def readv(_fd: int, _into: list[bytearray]) -> int:
        raise OSError(trouble.pop(0), "")

    monkeypatch.setattr(os, "readv", readv)
    kernel.session.run()
    assert trouble == []
    assert kernel.log == lines
    assert told(kernel) == [("destroy", 0)]


def test_other_errors_of_the_device_are_raised(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def readv(_fd: int, _into: list[bytearray]) -> int:
        raise PermissionError(errno.EPERM, "")

    monkeypatch.setattr(os, "readv", readv)
    with pytest.raises(PermissionError):
        kernel.session.run()
    assert told(kernel) == [("destroy", 0)]


@pytest.mark.parametrize("raw", [b"", b"short", request(Op.STATFS)[:39], request(Op.STATFS) + b"more", request(Op.STATFS, unique=0)])  # fmt: skip
def test_a_header_that_lies_ends_the_session(kernel: Kernel, raw: bytes) -> None:
    with pytest.raises(MalformedRequestError, match="a request of"):
        kernel.step(raw)
