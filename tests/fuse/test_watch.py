"""The budget of time: a driver that never returns is interrupted, wherever it is, and the engine never."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import Memtree
from fuservice.fuse import abi
from fuservice.fuse.abi import Op
from fuservice.fuse.budget import BudgetError, Budgets
from fuservice.fuse.filesystem import Attr, DirEntry, Entry, Filesystem
from fuservice.fuse.watch import CALLERS, TICKS, Watch, in_driver
from tests.fuse.fakekernel import Kernel, names_in, read_body, request

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = {"time": 150}  # ms


def forever() -> int:
    number = 0
    while True:
        number += 1


class Stuck(Memtree):
    """Each operation on "stuck" never ends, and the others do."""

    def __init__(self) -> None:
        super().__init__({"stuck": b"", "good": b"good"})
        self.swallowed = 0

    def getattr(self, node: int) -> Attr:
        return super().getattr(forever() if node == 2 else node)

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        while node == 2:
            try:
                forever()
            except OSError:
                self.swallowed += 1
                if self.swallowed == 3:
                    raise
        return super().read(node, handle, offset, into)

    def forget(self, node: int) -> None:
        if node == 2:
            forever()

    def listxattr(self, node: int) -> list[bytes]:
        return list(self._endless()) if node == 2 else []

    def _endless(self) -> Iterator[bytes]:
        while forever():
            yield b"user.never"

    def destroy(self) -> None:
        forever()


def test_a_driver_that_never_returns_costs_one_request() -> None:
    budgets = Budgets(SHORT)
    with Kernel(Stuck(), budgets=budgets) as kernel, Watch(budgets, budgets.time):
        kernel.ask(Op.LOOKUP, 1, b"stuck\0")
        assert kernel.ask(Op.GETATTR, 2, bytes(16)).error == errno.ETIMEDOUT
        assert kernel.ask(Op.READ, 3, read_body(10)).body == b"good"
        assert kernel.ask(Op.LISTXATTR, 2, bytes(8)).error == errno.ETIMEDOUT
        assert kernel.log == ["GETATTR /stuck: over the budget of 150 milliseconds for one request: 160"]
        assert budgets.facts()["budget_time"] == "150/150/2"


def test_one_that_swallows_the_error_meets_it_again() -> None:
    budgets = Budgets(SHORT)
    with Kernel(stuck := Stuck(), budgets=budgets) as kernel, Watch(budgets, budgets.time):
        assert kernel.ask(Op.READ, 2, read_body(10)).error == errno.ETIMEDOUT
        assert (stuck.swallowed, budgets.time.overruns) == (3, 3)


def test_forgetting_and_destroying_may_hang_too() -> None:
    budgets = Budgets(SHORT)
    with Kernel(Stuck(), budgets=budgets) as kernel, Watch(budgets, budgets.time):
        kernel.ask(Op.LOOKUP, 1, b"stuck\0")
        kernel.tell(Op.FORGET, 2, (1).to_bytes(8, sys.byteorder))
        assert len(kernel.session.nodes) == 0
        assert len(kernel.run()) == 0
        assert budgets.time.overruns == 2


def test_a_listing_ends_where_a_name_takes_too_long() -> None:
    class Slow(Memtree):
        def lookup(self, parent: int, name: bytes) -> Entry:
            if name >= b"c":
                forever()
            return super().lookup(parent, name)

    budgets = Budgets(SHORT)
    with Kernel(Slow(dict.fromkeys("abcd", b"")), budgets=budgets) as kernel, Watch(budgets, budgets.time):
        found = names_in(kernel.ask(Op.READDIRPLUS, 1, read_body(4096)).body, plus=True)
        assert [name for name, _ in found] == [b".", b"..", b"a", b"b"]
        assert kernel.ask(Op.READDIRPLUS, 1, read_body(4096, 4)).error == errno.ETIMEDOUT
        assert budgets.time.overruns == 2


def test_waiting_for_a_request_takes_no_time() -> None:
    budgets = Budgets({"time": 30})
    with Kernel(Memtree({}), budgets=budgets) as kernel, Watch(budgets, budgets.time):
        kernel._ours.send(request(Op.STATFS))

        def later() -> None:
            time.sleep(0.2)
            kernel._ours.send(request(Op.STATFS))
            kernel._ours.shutdown(1)

        thread = threading.Thread(target=later)
        thread.start()
        kernel.session.run()
        thread.join()
        assert len(kernel._ours.recv(100)) == len(kernel._ours.recv(100)) == 96
        assert (budgets.time.peak, budgets.time.overruns) == (0, 0)


class Placed(Filesystem):
    """Asks at each place that a driver is called from whether the watch would interrupt it there."""

    def __init__(self) -> None:
        self.found: dict[str, bool] = {}

    def note(self, what: str) -> None:
        self.found[what] = in_driver(sys._getframe(1), CALLERS)

    def lookup(self, parent: int, name: bytes) -> Entry:
        self.note("lookup")
        return Entry(2, Attr(ino=2, mode=abi.S_IFDIR))

    def forget(self, node: int) -> None:
        self.note("forget")

    def getattr(self, node: int) -> Attr:
        placed = self

        class Word(int):
            def __repr__(self) -> str:
                placed.note("a value that is shown")
                return "word"

        return Attr(ino=1, mode=Word(7))

    def readdir(self, node: int, handle: int, offset: int) -> Iterator[DirEntry]:
        self.note("readdir")
        yield DirEntry(b"name", 2, 0, 1)

    def listxattr(self, node: int) -> Iterator[bytes]:
        self.note("listxattr")
        yield b"user.name"

    def destroy(self) -> None:
        self.note("destroy")


def test_the_engine_is_never_interrupted() -> None:
    placed = Placed()
    with Kernel(placed) as kernel:
        kernel.session._failures._log = lambda _line: placed.note("the log")
        kernel.ask(Op.LOOKUP, 1, b"name\0")
        kernel.ask(Op.READDIRPLUS, 1, read_body(4096))
        kernel.ask(Op.LISTXATTR, 1, bytes(8))
        kernel.ask(Op.GETATTR, 1, bytes(16))
        kernel.tell(Op.FORGET, 2, (2).to_bytes(8, sys.byteorder))
        kernel.run()
    drivers = {"lookup", "forget", "readdir", "listxattr", "destroy", "a value that is shown"}
    assert {what for what, interrupted in placed.found.items() if interrupted} == drivers
    assert {what for what, interrupted in placed.found.items() if not interrupted} == {"the log"}
    assert not in_driver(sys._getframe(), CALLERS)
    assert not in_driver(None, CALLERS)


def test_opening_the_image_has_a_budget_too() -> None:
    budgets = Budgets({"start": 100})
    with Watch(budgets, budgets.start, callers=frozenset((__name__,))), pytest.raises(BudgetError) as caught:
        os.fspath(Endless())
    assert (caught.value.errno, caught.value.budget, budgets.time.overruns) == (errno.ETIMEDOUT, "start", 0)


class Endless:
    """Its path is somebody else's code: the module random's."""

    def __fspath__(self) -> str:
        from random import Random

        chance = Random(1)
        while chance.choices("ab", k=10):
            continue
        return ""


def test_overruns_are_told_once_a_tick_and_the_timer_is_given_back() -> None:
    told: list[str] = []
    budgets = Budgets({"time": 5 * TICKS, "handles": 0})
    before = signal.getsignal(signal.SIGALRM)
    with (
        Kernel(Memtree({"file": b""}), budgets=budgets) as kernel,
        Watch(budgets, budgets.time, tell=lambda: told.append(budgets.facts()["budget_handles"])),
    ):
        assert signal.getitimer(signal.ITIMER_REAL)[1] == pytest.approx(0.005)
        signal.pause()
        assert told == []
        for _ in range(2):
            kernel.ask(Op.OPEN, 2, bytes(8))
        while not told:
            signal.pause()
        for _ in range(3):
            signal.pause()
        assert told[-1] == "0/0/2"
        assert len(told) <= 2
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == before
