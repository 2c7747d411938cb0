"""The threads of a session: one at a time has the engine, and leaves it only while it waits for a disk.

Rule: the leader reads requests and answers them, as if it were alone. Where the driver must wait (:meth:`Crew.wait`), the
leader gives engine and lead to a thread that has nothing to do, waits without either, takes the engine again when nobody
else has it, finishes its request, and rests. So a driver's code is run by one thread at a time, and other requests come
in between only where it waits. What is not waited for costs nothing: locks are touched only while somebody is away.

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


class Crew:
    """*desks*, the first of which is the caller's own thread's, and each other one's that of a thread of *spare*.

    *lead* is called with a desk that leads, and returns when there is nothing more to read (``over``), or another leads.
    """

    __slots__ = (
        "_budgets", "_error", "_free", "_guard", "_idle", "_lead", "_main", "_queue", "_running", "away", "leader", "over",
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

    def run(self, spare: Sequence[Spare]) -> None:
        """Serve until it is over and nobody is away any more; raise what any of the threads has raised."""
        for thread, desk in zip(spare, self._idle[:], strict=True):
            thread(partial(self._help, desk))
        self._take_turns(self._main)
        while self.away:
            self._rest(self._main)
        for desk in self._idle:  # they are not needed any more
            desk.wake.release()
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
            desk.waits = False
            self.take(desk)
            self._budgets.counted = counted
            if desk.overdue:
                self._budgets.time.need(desk.overdue)

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
