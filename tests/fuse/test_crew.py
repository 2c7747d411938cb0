"""Several threads at one session: whoever waits for a disk keeps nobody, and a driver never runs twice at a time."""

from __future__ import annotations

import errno
import random
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import Memtree
from fuservice.errors import RemoteProtocolError
from fuservice.fuse import abi, crew
from fuservice.fuse.abi import Op
from fuservice.fuse.budget import RATIO_FROM, Budgets
from fuservice.fuse.watch import Watch
from fuservice.linux import threads
from tests.fuse.fakekernel import Kernel, Reply, init_body, read_body, request
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fuservice.fuse.filesystem import Attr, Entry, Wait

HELD, QUICK = 2, 3
both = pytest.mark.parametrize("cannot_say", [False, True], ids=["would block", "may block"])
DEADLINE = 20.0  # seconds: only to end a test that hangs


class Disk(Memtree):
    """Reading "held" takes until somebody opens the gate; it is counted how many threads are in here at a time."""

    def __init__(self, *, cannot_say: bool = False) -> None:
        super().__init__({"held": b"held", "quick": b"quick"})
        self.gate, self.waiting, self.inside, self.most = threading.Event(), 0, 0, 0
        self.destroyed_amid, self.cannot_say = -1, cannot_say

    def wait_with(self, wait: Wait, perhaps: Wait) -> None:
        self.wait = perhaps if self.cannot_say else wait

    def patiently(self, call: Callable[[], object]) -> None:
        """Wait, and count who else is in here meanwhile."""
        self.inside -= 1
        try:
            self.wait(call)
        finally:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def hold(self) -> None:
        self.waiting += 1
        assert self.gate.wait(DEADLINE)
        self.waiting -= 1

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        self.inside += 1
        try:
            self.most = max(self.most, self.inside)
            if node == HELD:
                self.patiently(self.hold)
            return super().read(node, handle, offset, into)
        finally:
            self.inside -= 1

    def destroy(self) -> None:
        self.destroyed_amid = self.waiting


class Desks(Kernel):
    """A kernel whose session has *helpers* beside the main thread, while *script* asks for things."""

    def serve(self, script: Callable[[], None]) -> None:
        """Run the session here and *script* elsewhere; at its end the session's, too."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                script()
            except BaseException as error:  # noqa: BLE001 - it is the test's
                failed.append(error)
            finally:
                self._ours.shutdown(1)

        thread = threading.Thread(target=run)
        self._ours.settimeout(DEADLINE)
        thread.start()
        try:
            self.session.run()
        finally:
            thread.join()
        for error in failed:
            raise error

    def send(self, op: int, node: int, body: bytes = b"", unique: int = 2) -> None:
        self._ours.send(request(op, node, body, unique))

    def reply(self) -> Reply:
        return Reply(self._ours.recv(2 << 20))


def helper(task: Callable[[], object]) -> None:
    threading.Thread(target=task, daemon=True).start()


def desks(filesystem: Memtree, helpers: int = 2, budgets: Budgets | None = None) -> Desks:
    return Desks(filesystem, budgets=budgets, spare=[helper] * (helpers + 1))


@both
def test_whoever_waits_keeps_nobody(cannot_say: bool) -> None:  # noqa: FBT001
    with desks(disk := Disk(cannot_say=cannot_say)) as kernel:

        def script() -> None:
            kernel.send(Op.READ, HELD, read_body(10), 10)
            for unique in range(11, 40):
                kernel.send(Op.READ, QUICK, read_body(10), unique)
                assert (kernel.reply().unique, disk.waiting) == (unique, 1)
            disk.gate.set()
            reply = kernel.reply()
            assert (reply.unique, reply.body) == (10, b"held")
            kernel.send(Op.READ, HELD, read_body(10), 50)  # and what follows is as before
            assert kernel.reply().unique == 50

        kernel.serve(script)
        assert (disk.most, disk.destroyed_amid) == (1, 0)


@pytest.mark.parametrize(("spare", "background"), [(0, 0), (2, 1), (8, 6)])
def test_what_is_read_ahead_leaves_threads_for_names(spare: int, background: int) -> None:
    with Desks(Memtree({}), spare=[helper] * spare, init=False) as kernel:
        reply = abi.INIT_OUT.unpack(kernel.ask(Op.INIT, 0, init_body()).body)
        assert reply[4:6] == (background, background)  # max_background, congestion_threshold


def test_one_that_was_relieved_comes_back_while_the_next_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And waits again: each must be taken for itself."""
    monkeypatch.setattr(crew, "LONG", 0.2)

    class Twice(Disk):
        def __init__(self) -> None:
            super().__init__(cannot_say=True)
            self.gates = {HELD: threading.Event(), QUICK: threading.Event()}
            self.seen: list[tuple[int, int]] = []

        def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
            for turn in range(2):
                self.seen.append((node, turn))
                self.wait(self.gates[node].wait, DEADLINE)
                assert kernel.session.crew.running().unique() == {HELD: 10, QUICK: 11}[node]
            return super(Disk, self).read(node, handle, offset, into)

    with desks(disk := Twice()) as kernel:

        def script() -> None:
            kernel.send(Op.READ, HELD, read_body(10), 10)
            wait_until(lambda: kernel.session.crew.away, "the first to be relieved")
            kernel.send(Op.READ, QUICK, read_body(10), 11)
            wait_until(lambda: (QUICK, 0) in disk.seen, "the second to wait")
            disk.gates[HELD].set()
            reply = kernel.reply()
            assert (reply.unique, reply.body) == (10, b"held")
            disk.gates[QUICK].set()
            reply = kernel.reply()
            assert (reply.unique, reply.body) == (11, b"quick")

        kernel.serve(script)
        assert sorted(disk.seen) == [(HELD, 0), (HELD, 1), (QUICK, 0), (QUICK, 1)]


@both
@pytest.mark.parametrize("helpers", [1, 2, 3])
def test_more_wait_than_there_are_threads(helpers: int, cannot_say: bool) -> None:  # noqa: FBT001
    """The last one blocks, as the only thread would; those who come back are not kept by it."""
    with desks(disk := Disk(cannot_say=cannot_say), helpers) as kernel:

        def script() -> None:
            for unique in range(10, 20):
                kernel.send(Op.READ, HELD, read_body(10), unique)
            wait_until(lambda: disk.waiting == 1 + helpers, "all threads to wait")
            disk.gate.set()
            assert sorted(kernel.reply().unique for _ in range(10)) == list(range(10, 20))

        kernel.serve(script)
        assert disk.most == 1


@both
def test_the_end_waits_for_those_who_are_away(cannot_say: bool) -> None:  # noqa: FBT001
    with desks(disk := Disk(cannot_say=cannot_say)) as kernel:

        def script() -> None:
            for unique in (10, 11):
                kernel.send(Op.READ, HELD, read_body(10), unique)
            wait_until(lambda: disk.waiting == 2, "two to wait")
            kernel._ours.shutdown(1)
            time.sleep(0.05)
            assert disk.destroyed_amid == -1
            disk.gate.set()

        kernel.serve(script)
        assert disk.destroyed_amid == 0


def test_an_error_of_what_is_waited_for_is_that_requests() -> None:
    class Broken(Disk):
        def hold(self) -> None:
            super().hold()
            raise OSError(errno.EREMOTEIO, "the disk is gone")

    with desks(disk := Broken()) as kernel:

        def script() -> None:
            kernel.send(Op.READ, HELD, read_body(10), 10)
            kernel.send(Op.READ, QUICK, read_body(10), 11)
            assert kernel.reply().unique == 11
            disk.gate.set()
            reply = kernel.reply()
            assert (reply.unique, reply.error) == (10, errno.EREMOTEIO)

        kernel.serve(script)


def test_what_no_kernel_sends_ends_the_session_whoever_reads_it() -> None:
    with desks(disk := Disk()) as kernel:

        def script() -> None:
            kernel.send(Op.READ, HELD, read_body(10), 10)
            wait_until(lambda: disk.waiting == 1, "one to wait")
            kernel._ours.send(b"no request")
            disk.gate.set()
            assert kernel.reply().unique == 10

        with pytest.raises(RemoteProtocolError, match="a request of 10 bytes"):
            kernel.serve(script)


@both
def test_a_driver_is_never_in_two_threads_at_a_time(cannot_say: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    monkeypatch.setattr(crew, "LONG", 0.0005)

    class Random(Disk):
        def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
            self.inside += 1
            for _ in range(chance.choice([0, 0, 0, 1, 3])):
                self.most = max(self.most, self.inside)
                self.patiently(lambda: time.sleep(chance.choice([0, 0.0002, 0.002])))
            self.inside -= 1
            return into[:0]

    chance = random.Random(3)
    with desks(disk := Random(cannot_say=cannot_say), 3) as kernel:
        wanted = set(range(10, 1_510))

        def script() -> None:
            answered: set[int] = set()
            for unique in sorted(wanted):
                kernel.send(Op.READ, QUICK, read_body(10), unique)
                if unique % 7 == 0:
                    answered |= {kernel.reply().unique for _ in range(chance.randrange(unique - 9 - len(answered)))}
            answered |= {kernel.reply().unique for _ in range(len(wanted) - len(answered))}
            assert answered == wanted

        kernel.serve(script)
        assert (disk.most, disk.inside) == (1, 0)


def test_what_is_forgotten_meanwhile_is_found_again() -> None:
    """A LOOKUP waits, and the kernel drops the last reference it has from before: the reply gives a new one."""

    class Slow(Disk):
        def lookup(self, parent: int, name: bytes) -> Entry:
            if name == b"quick":
                self.patiently(self.hold)
            return super().lookup(parent, name)

    with desks(disk := Slow()) as kernel:
        nodes = kernel.session.nodes
        nodes.give(QUICK, 1, b"quick")

        def script() -> None:
            kernel.send(Op.LOOKUP, 1, b"quick\0", 10)
            wait_until(lambda: disk.waiting == 1, "it to wait")
            kernel.send(Op.FORGET, QUICK, struct.pack("=Q", 1), 11)
            wait_until(lambda: QUICK not in nodes, "it to be forgotten")
            disk.gate.set()
            assert (kernel.reply().error, QUICK in nodes) == (0, True)

        kernel.serve(script)


def test_what_was_inflated_is_counted_for_each_by_itself() -> None:
    budgets = Budgets()

    class Inflates(Disk):
        def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
            for step in range(3):
                budgets.inflated(compressed=1, plain=RATIO_FROM // 4)
                if node == HELD and step == 1:
                    self.wait(self.hold)
            return super(Disk, self).read(node, handle, offset, into)

    with desks(disk := Inflates(), budgets=budgets) as kernel:

        def script() -> None:
            kernel.send(Op.READ, HELD, read_body(10), 10)
            kernel.send(Op.READ, QUICK, read_body(10), 11)
            assert (kernel.reply().unique, budgets.bytes.peak) == (11, 3 * (RATIO_FROM // 4))
            disk.gate.set()
            assert kernel.reply().unique == 10

        kernel.serve(script)
        assert budgets.bytes.peak == 3 * (RATIO_FROM // 4)


class Stuck(Disk):
    """Asking for attributes never ends."""

    def getattr(self, node: int) -> Attr:
        while True:
            pass


@both
@pytest.mark.parametrize("waits", [0, 1, 2])
def test_a_driver_that_never_returns_is_interrupted_in_any_thread(waits: int, cannot_say: bool) -> None:  # noqa: FBT001
    budgets = Budgets({"time": 150})
    with (
        desks(disk := Stuck(cannot_say=cannot_say), budgets=budgets) as kernel,
        Watch(budgets, budgets.time, interrupt=threads.interrupt),
    ):

        def script() -> None:
            for unique in range(10, 10 + waits):
                kernel.send(Op.READ, HELD, read_body(10), unique)
            wait_until(lambda: disk.waiting == waits, "some to wait")
            kernel.send(Op.GETATTR, QUICK, bytes(16), 40)
            reply = kernel.reply()
            assert (reply.unique, reply.error) == (40, errno.ETIMEDOUT)
            kernel.send(Op.READ, QUICK, read_body(10), 41)
            assert (kernel.reply().unique, disk.waiting) == (41, waits)
            time.sleep(0.05)  # some ticks more: they were counted from one, too, but not from the same
            disk.gate.set()
            for _ in range(waits):  # what has waited for too long hears it when it is back
                assert kernel.reply().error == errno.ETIMEDOUT

        kernel.serve(script)
        assert budgets.time.overruns == 1 + waits
        (line,) = kernel.log
        assert line.startswith("GETATTR …/: over the budget of 150 milliseconds for one request: 1")


def test_time_that_others_take_is_not_counted() -> None:
    budgets = Budgets({"time": 150})
    with (
        desks(disk := Stuck(), budgets=budgets) as kernel,
        Watch(budgets, budgets.time, interrupt=threads.interrupt),
    ):

        def script() -> None:
            kernel.send(Op.READ, HELD, read_body(10), 10)
            wait_until(lambda: disk.waiting == 1, "it to wait")
            kernel.send(Op.GETATTR, QUICK, bytes(16), 40)
            disk.gate.set()  # it is back soon, and stands in the queue
            replies = answers(kernel.reply() for _ in range(2))
            assert replies == {10: 0, 40: errno.ETIMEDOUT}

        kernel.serve(script)


def answers(replies: Iterable[Reply]) -> dict[int, int]:
    return {reply.unique: reply.error for reply in replies}
