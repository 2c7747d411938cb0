"""Whatever arrives from either side: an answer that the kernel takes, silence where that is due, or one clear error."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuservice.drivers.memtree import Memtree
from fuservice.fuse import abi, desk
from fuservice.fuse.abi import Op
from fuservice.fuse.codec import MalformedRequestError, Policy
from fuservice.fuse.filesystem import FOREVER, Attr, DirEntry, Entry, Filesystem, Opened, StatFs
from tests.fuse.fakekernel import SILENT, Kernel, good, init_body, names_in, read_body, request
from tests.fuse.test_session import TREE, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

bodies = st.one_of(
    st.binary(max_size=120),
    st.builds(lambda name: name + b"\0", st.sampled_from([b"file", b"link", b"sub", b".", b"a/b", b"x" * 300])),
    st.builds(read_body, st.integers(0, (1 << 20) + 1), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)),
    st.builds(init_body, st.integers(0, (1 << 32) - 1), major=st.integers(6, 9)),
)
opcodes = st.one_of(st.sampled_from(sorted(abi.OP_NAMES)), st.integers(0, (1 << 32) - 1))
nodes = st.one_of(st.integers(0, 8), st.integers(0, (1 << 64) - 1))


@given(st.booleans(), st.lists(st.tuples(opcodes, nodes, bodies), max_size=8))
def test_any_request_is_answered_or_refused(begun: bool, requests: list[tuple[int, int, bytes]]) -> None:  # noqa: FBT001 - hypothesis gives it by position
    with Kernel(Memtree(TREE), init=begun) as kernel:
        for op, node, body in requests:
            reply = None
            with contextlib.suppress(MalformedRequestError):
                reply = kernel.step(request(op, node, body))
                assert reply is not None or op in SILENT
            if reply and not reply.error:
                good(op, reply.body, 1 << 20)
            if kernel.session.crew.over:
                return


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error(raw: bytes) -> None:
    with Kernel(Memtree(TREE)) as kernel, contextlib.suppress(MalformedRequestError):
        kernel.step(raw)


class MuteError(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__


wild_integers = st.one_of(
    st.integers(), st.integers(-(1 << 70), 1 << 70), st.sampled_from([0, 1, -1, 1 << 32, 1 << 63, 1 << 64, 10**5000])
)
scalars = st.one_of(
    wild_integers,
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=300),
    st.builds(object),
)
wild_errnos = st.one_of(wild_integers, st.sampled_from([errno.ENOENT, errno.EIO, 511, 512, 4095, 4096]), scalars)
exceptions = st.one_of(
    st.builds(OSError, wild_errnos, st.text(max_size=5)), st.builds(FileNotFoundError),
    st.sampled_from([RecursionError(), MemoryError(), StopIteration(), ValueError("x" * 5000), KeyError(b"\xff"), MuteError(), ExceptionGroup("two", [ValueError()])]),
)  # fmt: skip
modes = st.one_of(st.integers(0, 0o177777), st.sampled_from([0o100644, 0o104755, 0o040755, 0o020666]), scalars)
wild_attrs = st.builds(
    Attr, ino=scalars | st.just(5), mode=modes, size=scalars | st.just(5), blocks=scalars | st.just(0), nlink=scalars | st.just(1),
    uid=scalars | st.just(0), gid=scalars | st.just(0), rdev=scalars | st.just(0), blksize=scalars | st.just(4096),
    atime_ns=scalars | st.just(0), mtime_ns=scalars | st.just(0), ctime_ns=scalars | st.just(0), btime_ns=scalars,
)  # fmt: skip
good_attrs = st.builds(
    Attr, ino=st.integers(1, 1 << 63), mode=st.sampled_from([0o100644, 0o040755, 0o104755, 0o060600])
)
attrs = st.one_of(wild_attrs, good_attrs)
entries = st.builds(
    Entry, st.one_of(scalars, st.integers(2, 9)), attrs, generation=scalars | st.just(0),
    entry_timeout_ns=scalars | st.just(0), attr_timeout_ns=scalars | st.just(0),
)  # fmt: skip
names = st.one_of(st.binary(max_size=300), st.sampled_from([b"a", b".", b"..", b"a/b", b"\0"]), scalars)
dir_entries = st.builds(DirEntry, names, scalars | st.integers(1, 9), st.sampled_from([0, 0o100000]) | scalars, scalars | st.integers(1, 9))  # fmt: skip
VIEWS = (memoryview(b"12345678")[::2], memoryview(bytes(64)).cast("Q"), memoryview(b""), bytearray(b"x"))
views = st.integers(0, len(VIEWS) - 1).map(VIEWS.__getitem__)  # not sampled: some of them have no hash
answers: dict[str, st.SearchStrategy[object]] = {
    "lookup": entries, "getattr": attrs, "readlink": st.binary(max_size=5000), "read": st.binary(max_size=80) | views,
    "open": st.builds(Opened, scalars, scalars), "opendir": st.builds(Opened, scalars, st.sampled_from([0, 2]) | scalars),
    "readdir": st.lists(dir_entries, max_size=5), "getxattr": st.binary(max_size=70), "listxattr": st.lists(names, max_size=3),
    "statfs": st.builds(StatFs, blocks=scalars, files=scalars, bsize=scalars, namelen=scalars), "lseek": scalars,
    "control": st.binary(max_size=40),
    "access": st.none(), "flush": st.none(), "release": st.none(), "releasedir": st.none(), "forget": st.none(),
}  # fmt: skip


class Wrapped:
    """What was drawn, unseen by hypothesis, which would ask for its words: some values have none, and the engine would
    take that error for the driver's."""

    def __init__(self, value: object) -> None:
        self.value = value


class Wild(Filesystem):
    """A driver that answers what hypothesis likes, or raises it, or raises it halfway through a list."""

    def __init__(self, draw: Callable[[st.SearchStrategy[object]], object]) -> None:
        for name, usual in answers.items():
            setattr(self, name, self._method(draw, usual))

    @staticmethod
    def _method(
        draw: Callable[[st.SearchStrategy[object]], object], usual: st.SearchStrategy[object]
    ) -> Callable[..., object]:
        def drawn(strategy: st.SearchStrategy[object]) -> object:
            wrapped = draw(strategy.map(Wrapped))
            assert isinstance(wrapped, Wrapped)
            return wrapped.value

        def method(*_: object) -> object:
            answer = drawn(st.one_of(usual, usual, scalars, exceptions))
            if isinstance(answer, Exception):
                raise answer
            tail = drawn(st.none() | exceptions)
            return Wild._torn(answer, tail) if isinstance(answer, list) and isinstance(tail, Exception) else answer

        return method

    @staticmethod
    def _torn(items: list[object], error: Exception) -> Iterator[object]:
        yield from items
        raise error


ASKS: list[tuple[int, bytes]] = [
    (Op.LOOKUP, b"name\0"), (Op.GETATTR, bytes(16)), (Op.STATX, bytes(24)), (Op.READLINK, b""), (Op.OPEN, bytes(8)),
    (Op.READ, read_body(64)), (Op.FLUSH, bytes(24)), (Op.RELEASE, bytes(24)), (Op.OPENDIR, bytes(8)),
    (Op.READDIR, read_body(1024)), (Op.READDIRPLUS, read_body(1024)), (Op.RELEASEDIR, bytes(24)), (Op.STATFS, b""),
    (Op.GETXATTR, struct.pack("=II", 64, 0) + b"user.a\0"), (Op.LISTXATTR, struct.pack("=II", 64, 0)),
    (Op.ACCESS, bytes(8)), (Op.LSEEK, struct.pack("=QQII", 0, 0, os.SEEK_DATA, 0)),
    (Op.IOCTL, struct.pack("=QIIQII", 0, 0, 0x80086601, 0, 0, 8)), (Op.IOCTL, struct.pack("=QIIQII", 0, 0, 1, 0, 4, 0) + b"data"),
]  # fmt: skip


@given(st.data(), st.lists(st.sampled_from(ASKS), min_size=1, max_size=6), st.booleans())
@settings(deadline=None)
def test_any_value_of_a_driver_is_checked(data: st.DataObject, asks: list[tuple[int, bytes]], lax: bool) -> None:  # noqa: FBT001 - see above
    policy = Policy(allow_suid=lax, allow_dev=lax)
    with Kernel(Wild(data.draw), policy) as kernel:
        for op, body in asks:
            reply = kernel.ask(op, 1, body)  # which judges it
            if op == Op.GETATTR and not reply.error and not lax:
                mode = abi.ATTR.unpack(reply.body[16:])[9]
                assert mode & abi.S_IFMT not in (abi.S_IFBLK, abi.S_IFCHR)
                assert mode & abi.S_IFMT != abi.S_IFREG or not mode & 0o6000
        for node in range(2, 10):
            kernel.tell(Op.FORGET, node, struct.pack("=Q", 1 << 40))
        assert not any(node in kernel.session.nodes for node in range(2, 10))
        assert all(line.isprintable() for line in kernel.log)


steps = st.one_of(
    st.tuples(
        st.just("lookup"), st.sampled_from([b"file", b"link", b"sub", b"sparse", b"none", b"disk"]), st.booleans()
    ),
    st.tuples(st.just("listing"), st.integers(0, 7), st.booleans()),
    st.tuples(st.just("forget"), st.integers(1, 7), st.integers(0, 4)),
    st.tuples(st.just("batch"), st.lists(st.tuples(st.integers(1, 7), st.integers(0, 4)), max_size=4), st.just(0)),
)


class Model:
    """What the kernel and the driver should know, kept by the replies that were delivered."""

    def __init__(self, kernel: Kernel, patch: pytest.MonkeyPatch) -> None:
        self.kernel, self.patch = kernel, patch
        self.counts: Counter[int] = Counter()

    def ask(self, op: int, body: bytes, *, lost: bool) -> bytes:
        """Return the reply's body, b"" if it was an error or got lost."""
        with self.patch.context() as patch:
            if lost:
                patch.setattr(desk, "_write", self._nobody)
            reply = self.kernel.step(request(op, 1, body))
        return reply.body if reply else b""

    @staticmethod
    def _nobody(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOENT, "interrupted")

    def lookup(self, name: bytes, lost: bool) -> None:  # noqa: FBT001 - a step of the property
        body = self.ask(Op.LOOKUP, name + b"\0", lost=lost)
        if body and (node := abi.ENTRY_OUT.unpack(body)[0]):
            self.counts[node] += 1

    def listing(self, offset: int, lost: bool) -> None:  # noqa: FBT001 - a step of the property
        body = self.ask(Op.READDIRPLUS, read_body(1024, offset), lost=lost)
        self.counts.update(node for _, node in names_in(body, plus=True) if node)

    def forget(self, node: int, count: int) -> None:
        self.kernel.tell(Op.FORGET, node, struct.pack("=Q", count))
        self.counts[node] = max(0, self.counts[node] - count)

    def batch(self, forgets: list[tuple[int, int]], _: int) -> None:
        body = b"".join(struct.pack("=QQ", node, count) for node, count in forgets)
        self.kernel.tell(Op.BATCH_FORGET, 0, struct.pack("=II", len(forgets), 0) + body)
        for node, count in forgets:
            self.counts[node] = max(0, self.counts[node] - count)


@given(st.lists(steps, max_size=30))
@settings(deadline=None)
def test_nodes_are_counted_as_the_kernel_counts(sequence: list[tuple[str, object, object]]) -> None:
    driver = Recorder(timeout_ns=FOREVER)
    with Kernel(driver) as kernel, pytest.MonkeyPatch.context() as patch:
        model = Model(kernel, patch)
        for step, first, second in sequence:
            before = len(driver.told)
            had = {node for node, count in model.counts.items() if count}
            getattr(model, step)(first, second)
            has = {node for node, count in model.counts.items() if count}
            assert {node: known[0] for node, known in kernel.session.nodes._known.items()} == +model.counts - Counter(
                {0: 99}
            )
            told = {node for what, node in driver.told[before:] if what == "forget"}
            assert had - has <= told  # each node that went was told to the driver…
            assert not told & has  # …and none that stays
