"""The watch over a running session: no request may take longer than its budget, and overruns are told to whoever keeps count.

Rule: requests pay nothing for it. One timer, armed once, ticks a few times per budget; a tick that finds the same request as
ticks before, for as long as the budget says, raises :class:`~fuservice.fuse.budget.BudgetError` inside the driver. It is
raised in code that the engine called and never in the engine's own, so no reply is torn and no count is lost; in a thread
that waits for a disk, when it comes back. A driver may
be interrupted between any two of its bytecodes, as by MemoryError; one that swallows the error is interrupted at each
further tick. What is beyond it: a single call into C, whose end Python waits for, so a driver works in pieces.

Fewer ticks, and the error would come late; more would wake an idle machine for nothing.
System calls: rt_sigaction(2) and setitimer(2) when it begins and ends, rt_sigreturn(2) at each tick. Whoever will be in a cage
without the first two calls arm() before.
"""

from __future__ import annotations

import _thread
import sys

from fuservice.fuse import codec, crew, desk, failures, nodes, operations, session
from fuservice.fuse.budget import BudgetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import FrameType
    from typing import Final, TypeAlias

    from fuservice.fuse.budget import Budget, Budgets, Worker

    Interrupt: TypeAlias = Callable[[int, type[BaseException]], None]
else:
    import _signal as signal  # signal itself is this and an enum, whose import takes milliseconds

TICKS: Final = 15  # per budget of time, or more:
LONGEST_TICK: Final = 2_000  # ms: so late an overrun is told

#: The engine, by module names; and which of its modules call drivers.
CALLERS: Final = frozenset(module.__name__ for module in (codec, operations, session))
_ENGINE: Final = frozenset(module.__name__ for module in (crew, desk, failures, nodes)) | {__name__}


def _let_be(_thread: int, _error: type[BaseException]) -> None:
    """There is no other thread."""


def in_driver(frame: FrameType | None, callers: frozenset[str]) -> bool:
    """Say whether what runs in *frame* was called by one of the modules *callers* and is not the engine itself."""
    own = True
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module in callers or module in _ENGINE:
            return not own and module in callers
        own, frame = False, frame.f_back
    return False


class _OverdueError(BudgetError):
    """What is raised in another thread, which Python tells a class and no more: *of* is the error that it stands for."""

    of: BudgetError

    def __init__(self) -> None:
        OSError.__init__(self, self.of.errno, self.of.strerror)
        self.budget, self.used, self.limit = self.of.budget, self.of.used, self.of.limit


class Alarm:
    """SIGALRM, of which a process has one, and the watch that it is for now."""

    def __init__(self) -> None:
        self.tick_ms = 0  # of a timer that runs for good; 0: each watch has a timer of its own
        self.watch: Watch | None = None

    def ring(self, _number: int, frame: FrameType | None) -> None:
        """Be the handler of the signal."""
        if self.watch is not None:
            self.watch.look(frame)


ALARM: Final = Alarm()


def arm() -> None:
    """Start a timer for all watches to come, for good: they make no system call then. In the main thread."""
    ALARM.tick_ms = LONGEST_TICK
    signal.signal(signal.SIGALRM, ALARM.ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_TICK / 1000, LONGEST_TICK / 1000)


class Watch:
    """Keeps *time*, one of *budgets*, for what *callers* call, in a ``with``: in the main thread, which gives us its SIGALRM.

    *interrupt* raises a class of exceptions in another thread, for sessions that have several.
    *tell*, where somebody keeps count, is called when requests went over one of the budgets: at most once a tick.
    """

    def __init__(
        self, budgets: Budgets, time: Budget, *,
        callers: frozenset[str] = CALLERS, tell: Callable[[], None] | None = None, interrupt: Interrupt | None = None,
    ) -> None:  # fmt: skip
        self._budgets, self._time, self._callers, self._tell = budgets, time, callers, tell
        self._interrupt: Interrupt = interrupt or _let_be
        self._told = 0
        self._tick_ms = ALARM.tick_ms or max(1, min(LONGEST_TICK, time.limit // TICKS))

    def __enter__(self) -> None:
        self._outer, ALARM.watch = ALARM.watch, self
        if not ALARM.tick_ms:
            self._before = signal.signal(signal.SIGALRM, ALARM.ring)
            signal.setitimer(signal.ITIMER_REAL, self._tick_ms / 1000, self._tick_ms / 1000)

    def __exit__(self, *_error: object) -> None:
        ALARM.watch = self._outer
        if not ALARM.tick_ms:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def look(self, frame: FrameType | None) -> None:
        """Judge the requests that are in work, at a tick that met this thread in *frame*; BudgetError for its own."""
        self._tell_overruns()
        frames = {**sys._current_frames(), 0: frame}
        frames[_thread.get_ident()] = frame
        own = None
        for worker in self._budgets.workers:
            error = self._judge(worker, frames.get(worker.thread))
            if error is not None and frames.get(worker.thread) is frame:
                own = error
            elif error is not None:
                self._interrupt(worker.thread, type("Overdue", (_OverdueError,), {"of": error}))
        if own is not None:
            raise own

    def _judge(self, worker: Worker, where: FrameType | None) -> BudgetError | None:
        """Count a tick for the request of *worker*, who is in *where*; return what is to be raised there, if anything."""
        request = worker.unique()
        if request != worker.seen or (where is not None and session.waits_in(where)):
            worker.seen, worker.ticks, worker.overdue = request, 0, 0
            return None
        if where is not None and crew.queues_in(where):
            return None  # others take that time
        worker.ticks += 1
        used = worker.ticks * self._tick_ms
        if worker.waits:
            worker.overdue = used if used > self._time.limit else 0
        elif in_driver(where, self._callers):
            try:
                self._time.need(used)
            except BudgetError as error:
                return error
        return None

    def _tell_overruns(self) -> None:
        overruns = self._budgets.overruns()
        if self._tell is not None and overruns != self._told:
            self._told = overruns
            self._tell()
