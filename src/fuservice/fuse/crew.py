"""The threads of a session: one at a time has the engine, and leaves it only while it waits for a disk.

Rule: the leader reads requests and answers them, as if it were alone. Where the driver must wait (:meth:`Crew.wait`), the
leader gives engine and lead to a thread that has nothing to do, waits without either, takes the engine again when nobody
else has it, finishes its request, and rests. So a driver's code is run by one thread at a time, and other requests come
in between only where it waits. What is not waited for costs nothing: locks are touched only while somebody is away.

Of some calls nobody can say beforehand whether they will take long (:meth:`Crew.perhaps`). They begin as if they would not, and
a thread that does nothing else looks every few milliseconds whether one is still going on; then it takes engine and lead
away for another. It sleeps while there are no such calls.

The engine is passed on in the order in which it was asked for, lest the leader, who asks often, keep it from the others.
The kernel forgets no node, and closes no handle, about which a request is still open: whoever comes back finds them there.
"""

from __future__ import annotations

import _thread
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Final, ParamSpec, TypeAlias, TypeVar

    from fuservice.fuse.budget import Budgets
    from fuservice.fuse.desk import Desk

    P = ParamSpec("P")
    T = TypeVar("T")
    #: Lets a thread that waits for a task do one.
    Spare: TypeAlias = Callable[[Callable[[], object]], None]


#: Seconds that a call may take before others are served. Each tick of the watch costs a switch of threads.
LONG: Final = 0.01
MOST_QUIET: Final = 100  # ticks without a call, after which nobody looks


class Crew:
    """*desks*, the first of which is the caller's own thread's, and each other one's that of a spare thread.

    *lead* is called with a desk that leads, and returns when there is nothing more to read (``over``), or another leads.
    """

    __slots__ = (
        "_bell", "_budgets", "_calls", "_error", "_free", "_guard", "_idle", "_is_awake", "_lead", "_main", "_open", "_queue",
        "_running", "away", "leader", "over",
    )  # fmt: skip

    def __init__(self, desks: Sequence[Desk], budgets: Budgets, lead: Callable[[Desk], None]) -> None:
        self._main, self._budgets, self._lead = desks[0], budgets, lead
        self.leader: Desk | None = self._main
        self.away: set[Desk] = set()  #: who is in the middle of a request, and does not lead
        self.over = False  #: nothing more is read
        self._running = self._main  # who has the engine, or had it last
        self._idle = list(desks[1:])
        self._queue: list[Desk] = []  # who wants it
        self._free, self._guard = False, _thread.allocate_lock()
        self._error: BaseException | None = None
        self._open: list[Desk] = []  # who is in a call that may take long, or not; changed by single calls into C
        self._calls, self._is_awake = 0, False  # how many there were; whether the watchman looks
        self._bell = _thread.allocate_lock()
        self._bell.acquire()

    def run(self, spare: Sequence[Spare]) -> None:
        """Serve until it is over and nobody is away any more; raise what any of the threads has raised.

        *spare* is a thread for each desk but the first, and one more.
        """
        tasks: list[Callable[[], None]] = [partial(self._help, desk) for desk in self._idle]
        for thread, task in zip(spare, [*tasks, self._keep_watch], strict=bool(spare)):
            thread(task)
        self._take_turns(self._main)
        while self.away:
            self._rest(self._main)
        for desk in self._idle:  # they are not needed any more
            desk.wake.release()
        self._ring()
        if self._error is not None:
            raise self._error

    def running(self) -> Desk:
        """Return the desk that has the engine."""
        return self._running

    def wait(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *call* does, which may take long and touches nothing that is anybody else's; others are served meanwhile.

        For the code of a driver. BudgetError where its request has taken too long.
        """
        desk, counted = self._running, self._budgets.counted
        desk.waits = True
        if self.leader is desk:
            self._give_lead(desk)
        else:
            self._release()
        try:
            return call(*args, **kwargs)
        finally:
            self._come_back(desk, counted)

    def _come_back(self, desk: Desk, counted: tuple[int, int, int]) -> None:
        desk.waits = False
        self.take(desk)
        desk.waits = False  # whoever relieved us may have said it when we were back already
        self._budgets.counted = counted
        if desk.overdue:
            self._budgets.time.need(desk.overdue)

    def perhaps(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the same for a call that mostly takes no time: others are served from when it has taken LONG."""
        desk, counted = self._running, self._budgets.counted
        if self.leader is not desk:  # others are served already
            return self.wait(call, *args, **kwargs)
        self._calls += 1
        self._open.append(desk)
        if not self._is_awake:
            self._is_awake = True
            self._ring()
        try:
            return call(*args, **kwargs)
        finally:
            try:
                self._open.remove(desk)  # ours: whoever leads by now may have one, too
            except ValueError:
                self._come_back(desk, counted)

    def _keep_watch(self) -> None:
        """Be the thread that looks for calls that go on. Whoever takes a desk out of ``_open`` has the engine: its thread, or we."""
        while not self.over:
            self._bell.acquire()
            self._look()
            while self._open and not self.over:  # it came when we looked no more, and saw us awake
                self._look()

    def _look(self) -> None:
        """Look whether calls go on, until there were none for a while."""
        self._is_awake = True
        seen, quiet = self._calls, 0
        while quiet < MOST_QUIET and not self.over:
            self._bell.acquire(timeout=LONG)
            if self._calls != seen:
                seen, quiet = self._calls, 0
            else:
                quiet += 1
                self._relieve()
        self._is_awake = False

    def _ring(self) -> None:
        if self._bell.locked():
            self._bell.release()

    def _relieve(self) -> None:
        try:
            desk = self._open.pop()
        except IndexError:
            return
        desk.waits = True
        self._give_lead(desk)

    def without(self, desk: Desk, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *call* does, while the engine is free for those who come back."""
        self._release()
        try:
            return call(*args, **kwargs)
        finally:
            self.take(desk)

    def take(self, desk: Desk) -> None:
        """Have the engine; blocks until it is this desk's turn."""
        with self._guard:
            if self._free:
                self._free, self._running = False, desk
                return
            self._queue.append(desk)
        desk.wake.acquire()

    def _release(self) -> None:
        with self._guard:
            if self._queue:
                self._pass_to(self._queue.pop(0))
            else:
                self._free = True

    def _pass_to(self, desk: Desk) -> None:
        self._running = desk
        desk.wake.release()

    def _give_lead(self, desk: Desk) -> None:
        """Let somebody else read on, and have the engine. Where all are away, the first who has done with it will."""
        self.away.add(desk)
        if self._idle and not self.over:
            self.leader = self._idle.pop()
            self._pass_to(self.leader)
        else:
            self.leader = None
            self._release()

    def _take_turns(self, desk: Desk) -> None:
        """Lead, and rest, until it is over. The engine is ours at the beginning and at the end."""
        try:
            while not self.over:
                self._lead(desk)
                if self.leader is desk:
                    self.over = True
                    return
                self.away.discard(desk)
                if self.leader is None:
                    self.leader = desk
                elif not self.over:
                    self._rest(desk)
        except BaseException as error:  # noqa: BLE001 - it is the main thread's to raise
            self.away.discard(desk)
            self._error, self.over = self._error or error, True

    def _rest(self, desk: Desk) -> None:
        """Wait until somebody gives us the engine, and the lead with it unless it is over."""
        self._idle.append(desk)
        self._release()
        desk.wake.acquire()

    def _help(self, desk: Desk) -> None:
        """Be one of the other threads: wait for the lead, take turns; at the end, let the main thread know."""
        desk.thread = _thread.get_ident()
        desk.wake.acquire()
        self._take_turns(desk)
        if self._running is not desk:
            return  # not needed any more
        if self._main in self._idle:
            self._idle.remove(self._main)
            self._pass_to(self._main)
        else:
            self._release()


_IDLE: Final = frozenset(f.__code__ for f in (Crew.without, Crew._rest, Crew._help))
_QUEUED: Final = Crew.take.__code__


def rests_in(frame: FrameType) -> bool:
    """Say whether *frame*, the innermost one of a thread, has no request in work."""
    return frame.f_code in _IDLE


def queues_in(frame: FrameType) -> bool:
    """Say whether *frame*, the innermost one of a thread, is held up by other requests."""
    return frame.f_code is _QUEUED
