"""Budgets: what each one stops, with which errno, what is said and counted, and that the mount lives on."""

from __future__ import annotations

import errno
import random
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import Memtree
from fuservice.fuse import abi, budget
from fuservice.fuse.abi import Op
from fuservice.fuse.budget import DEFAULTS, Budget, BudgetError, Budgets
from fuservice.fuse.filesystem import Attr, DirEntry, Entry, Filesystem
from fuservice.fuse.operations import MOST_LISTED
from tests.fuse.fakekernel import Kernel, Reply, names_in, read_body, request
from tests.fuse.test_session import FILE, SUB, Recorder, told

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20


def test_a_budget_grants_up_to_its_limit_and_counts_what_it_does_not() -> None:
    depth = Budgets({"depth": 7}).depth
    for used in (3, 7, 2):
        depth.need(used)
    assert (depth.peak, depth.overruns) == (7, 0)
    for used in (8, 9):
        with pytest.raises(BudgetError) as caught:
            depth.need(used)
        error = caught.value
        assert (error.errno, error.budget, error.used, error.limit) == (errno.ENAMETOOLONG, "depth", used, 7)
        assert str(error) == f"over the budget of 7 names below each other: {used}"
    assert (depth.peak, depth.overruns) == (7, 2)


def test_defaults_are_what_the_kernel_takes_and_a_listener_keeps() -> None:
    assert all(1 <= number <= abi.MAX_ERRNO for _, number, _ in DEFAULTS.values())
    budgets = Budgets()
    assert {name: getattr(budgets, "bytes" if name == "inflated" else name).limit for name in DEFAULTS} == {
        name: limit for name, (limit, _, _) in DEFAULTS.items()
    }
    most = Budgets(dict.fromkeys(DEFAULTS, 10**10))
    for one in most._all:
        one.peak = one.overruns = 10**10
    assert sum(len(f" {name}={value}") for name, value in most.facts().items()) <= 500


def test_the_table_for_administrators_says_what_is_kept() -> None:
    text = (Path(__file__).resolve().parents[2] / "SECURITY.md").read_text()
    table = text.partition("## Budgets")[2].partition("##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("| `")]
    assert rows == [
        [f"`{name}`", f"{limit:,} {what}", errno.errorcode[number]] for name, (limit, number, what) in DEFAULTS.items()
    ]


def test_a_limit_of_nothing_that_there_is_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Budgets({"patience": 1})


# Names and nodes


class Bottomless(Filesystem):
    """Each name in each directory is a directory never seen before."""

    def __init__(self) -> None:
        self.last = 1
        self.forgotten: list[int] = []

    def lookup(self, parent: int, name: bytes) -> Entry:
        self.last += 1
        return Entry(self.last, self.getattr(self.last))

    def getattr(self, node: int) -> Attr:
        return Attr(ino=node, mode=abi.S_IFDIR | 0o755)

    def forget(self, node: int) -> None:
        self.forgotten.append(node)

    def readdir(self, node: int, handle: int, offset: int) -> Iterator[DirEntry]:
        while True:
            offset += 1
            yield DirEntry(b"%d" % offset, offset, 0, offset)


def test_a_tree_without_a_bottom_gets_one() -> None:
    with Kernel(bottomless := Bottomless(), budgets=Budgets({"depth": 5})) as kernel:
        for node in range(1, 6):
            assert kernel.ask(Op.LOOKUP, node, b"down\0").error == 0
        for name in (b"a\0", b"b\0"):
            assert kernel.ask(Op.LOOKUP, 6, name).error == errno.ENAMETOOLONG
        assert bottomless.forgotten == [7, 8]  # the kernel was not told of them
        assert kernel.log == ["LOOKUP /down/down/down/down/down/a: over the budget of 5 names below each other: 6"]
        assert kernel.session.budgets.facts()["budget_depth"] == "5/5/2"
        assert kernel.ask(Op.LOOKUP, 1, b"aside\0").error == 0
        assert kernel.ask(Op.GETATTR, 6, bytes(16)).error == 0


def test_the_depth_of_a_node_is_counted_from_where_it_was_found() -> None:
    with Kernel(Bottomless(), budgets=Budgets({"depth": 2})) as kernel:
        kernel.ask(Op.LOOKUP, 1, b"a\0")
        kernel.tell(Op.FORGET, 2, struct.pack("=Q", 1))
        assert kernel.ask(Op.LOOKUP, 1, b"b\0").error == 0
        assert kernel.ask(Op.LOOKUP, 3, b"c\0").error == 0
        assert kernel.ask(Op.LOOKUP, 4, b"d\0").error == errno.ENAMETOOLONG


def test_nodes_without_number() -> None:
    with Kernel(bottomless := Bottomless(), budgets=Budgets({"nodes": 3})) as kernel:
        for _ in range(3):
            assert kernel.ask(Op.LOOKUP, 1, b"more\0").error == 0
        assert kernel.ask(Op.LOOKUP, 1, b"more\0").error == errno.ENOMEM
        assert bottomless.forgotten == [5]
        kernel.tell(Op.FORGET, 2, struct.pack("=Q", 1))
        assert kernel.ask(Op.LOOKUP, 1, b"again\0").error == 0
        assert kernel.session.budgets.facts()["budget_nodes"] == "3/3/1"


def test_a_listing_goes_on_without_the_nodes_that_there_is_no_room_for() -> None:
    with Kernel(Recorder(), budgets=Budgets({"nodes": 2})) as kernel:
        found = names_in(kernel.ask(Op.READDIRPLUS, 1, read_body(4096)).body, plus=True)
        assert [name for name, node in found if node] == [b"file", b"link"]
        assert [name for name, node in found if not node] == [b".", b"..", b"sub", b"disk", b"sparse"]
        assert kernel.ask(Op.LOOKUP, 1, b"sub\0").error == errno.ENOMEM
        assert ("forget", SUB) in told(kernel)


# Directories


def listed(kernel: Kernel, offset: int = 0, room: int = 4096) -> tuple[list[bytes], int]:
    """List directory 1 until there is nothing more or an error; return the names, and the errno."""
    names: list[bytes] = []
    while True:
        reply = kernel.ask(Op.READDIR, 1, read_body(room, offset))
        if reply.error or not reply.body:
            return names, reply.error
        names += [name for name, _ in names_in(reply.body)]
        offset = int(names[-1])


def test_a_directory_without_an_end_gets_one() -> None:
    with Kernel(Bottomless(), budgets=Budgets({"entries": 1000})) as kernel:
        for _ in range(2):
            names, error = listed(kernel)
            assert error == errno.EFBIG
            assert 1000 <= len(names) <= 1000 + 4096 // 32
        assert len(kernel.log) == 1
        assert kernel.log[0].startswith("READDIR /: over the budget of 1000 entries of one directory: 1")
        assert kernel.session.budgets.entries.overruns == 2
        assert kernel.ask(Op.STATFS).error == 0


def test_a_directory_that_goes_round_gets_an_end() -> None:
    class Round(Filesystem):
        def readdir(self, node: int, handle: int, offset: int) -> Iterator[DirEntry]:
            for cookie in range(offset % 40, 40):
                yield DirEntry(b"%d" % (cookie + 1), 1, 0, cookie + 1)

    with Kernel(Round(), budgets=Budgets({"entries": 1000})) as kernel:
        names, error = listed(kernel)
        assert error == errno.EFBIG
        assert 1000 <= len(names) <= 1040


def test_a_directory_within_its_budget_may_be_listed_by_anybody_as_often_as_they_like() -> None:
    tree = Memtree({str(number): b"" for number in range(3, 98)})
    with Kernel(tree, budgets=Budgets({"entries": 97})) as kernel:
        for start in range(3):
            for room in (96, 600, 4096):
                names, error = listed(kernel, start, room)
                assert (len(names), error) == (97 - start, 0)
        assert kernel.session.budgets.facts()["budget_entries"] == "97/97/0"


def test_what_is_remembered_of_listings_has_an_end() -> None:
    with Kernel(Bottomless()) as kernel:
        for offset in range(2 * MOST_LISTED):
            kernel.ask(Op.READDIR, 1, read_body(40, offset))
        assert len(kernel.session.nodes.listed) == MOST_LISTED
        assert kernel.session.budgets.entries.peak == 2 * MOST_LISTED - 1


# Handles


@pytest.mark.parametrize(("op", "close"), [(Op.OPEN, Op.RELEASE), (Op.OPENDIR, Op.RELEASEDIR)])
def test_files_that_are_open(op: int, close: int) -> None:
    node = FILE if op == Op.OPEN else SUB
    with Kernel(Recorder(), budgets=Budgets({"handles": 2})) as kernel:
        assert [kernel.ask(op, node, bytes(8)).error for _ in range(4)] == [0, 0, errno.ENFILE, errno.ENFILE]
        assert [what for what, _ in told(kernel)] == ["release" if op == Op.OPEN else "releasedir"] * 2
        kernel.ask(close, node, bytes(24))
        assert [kernel.ask(op, node, bytes(8)).error for _ in range(2)] == [0, errno.ENFILE]
        assert kernel.session.budgets.facts()["budget_handles"] == "2/2/3"
        assert len(kernel.log) == 1


# Inflating


def deflated(data: bytes, times: int) -> bytes:
    """Return *data*, *times* over, as one zlib stream."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(data) for _ in range(times)) + packer.flush()


class Inflating(Memtree):
    """Files are the beginnings of zlib streams: a driver as it should be, that inflates piece by piece, and counts."""

    def __init__(self, budgets: Budgets, **streams: bytes) -> None:
        super().__init__(dict.fromkeys(streams, b"?"))
        self.budgets, self.streams = budgets, list(streams.values())
        self.largest = 0

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        """Inflate from the start, keeping nothing but the piece that was asked for: offset and bytes in one piece."""
        stream, rest, at = zlib.decompressobj(), self.streams[node - 2], 0
        while True:
            before = len(rest)
            piece = stream.decompress(rest, 64 * KIB)
            rest = stream.unconsumed_tail
            self.largest = max(self.largest, len(piece))
            self.budgets.inflated(compressed=before - len(rest), plain=len(piece))
            if at + len(piece) > offset or not piece:
                wanted = piece[max(0, offset - at) :][: len(into)]
                into[: len(wanted)] = wanted
                return into[: len(wanted)]
            at += len(piece)


def ask_read(kernel: Kernel, node: int, offset: int, unique: int) -> Reply:
    reply = kernel.step(request(Op.READ, node, read_body(4096, offset), unique))
    assert reply is not None
    return reply


def test_bytes_inflated_for_one_request() -> None:
    budgets = Budgets({"inflated": 4 * MIB})
    data = bytes(range(256)) * 256  # 64 KiB
    driver = Inflating(budgets, stream=deflated(data, 160), small=deflated(b"small", 1))
    with Kernel(driver, budgets=budgets) as kernel:
        kernel.ask(Op.LOOKUP, 1, b"stream\0")
        for unique in range(2, 12, 2):  # five times what one request may, in all
            assert ask_read(kernel, 2, 3 * MIB + 1, unique).body == (data * 2)[1:4097]
        assert ask_read(kernel, 2, 9 * MIB, 20).error == errno.EFBIG
        assert ask_read(kernel, 2, 9 * MIB, 22).error == errno.EFBIG
        assert kernel.log == [
            f"READ /stream: over the budget of {4 * MIB} bytes inflated for one request: {4 * MIB + 64 * KIB}"
        ]
        assert ask_read(kernel, 3, 0, 24).body == b"small"
        assert budgets.facts()["budget_inflated"] == f"{4 * MIB}/{4 * MIB}/2"
        assert budgets.ratio.overruns == 0
    assert driver.largest <= 64 * KIB


def test_a_bomb_is_known_by_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "RATIO_FROM", MIB)
    budgets = Budgets({"ratio": 100})
    bomb = deflated(bytes(MIB), 16)
    assert len(bomb) < 16 * MIB / 1000
    honest = deflated(random.Random(1).randbytes(64 * KIB).hex().encode(), 16)  # no repetition within deflate's 32 KiB
    with Kernel(Inflating(budgets, bomb=bomb, honest=honest), budgets=budgets) as kernel:
        assert ask_read(kernel, 2, 512 * KIB, 2).body == bytes(4096)  # a few zeros are no bomb
        assert ask_read(kernel, 2, 8 * MIB, 4).error == errno.EFBIG
        assert "bytes inflated from each byte" in kernel.log[0]
        assert ask_read(kernel, 3, MIB + 512 * KIB, 6).error == 0
        assert budgets.ratio.overruns == 1
        assert 1 <= budgets.ratio.peak <= 100


def test_opening_may_inflate_everything_but_no_bomb() -> None:
    budgets = Budgets({"inflated": MIB})
    for _ in range(100):
        budgets.inflated(compressed=MIB, plain=3 * MIB)
    assert (budgets.bytes.overruns, budgets.ratio.peak) == (0, 3)
    with pytest.raises(BudgetError):
        budgets.inflated(compressed=0, plain=1 << 40)


def test_a_stream_from_nothing_is_a_bomb() -> None:
    with pytest.raises(BudgetError) as caught:
        Budgets().inflated(compressed=0, plain=budget.RATIO_FROM + 1)
    assert caught.value.budget == "ratio"


# What is said


def test_each_budget_is_logged_once() -> None:
    class Greedy(Bottomless):
        def getattr(self, node: int) -> Attr:
            raise BudgetError(Budget("ratio" if node % 2 else "inflated", 1), node)

        lookup = Filesystem.lookup

    with Kernel(Greedy()) as kernel:
        assert {kernel.ask(Op.GETATTR, node, bytes(16)).error for node in range(1, 20)} == {errno.EFBIG}
        assert [line.partition(": ")[0] for line in kernel.log] == ["GETATTR /", "GETATTR …/"]
