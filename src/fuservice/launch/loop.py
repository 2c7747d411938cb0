"""One poll, what to do about each descriptor that it reports, and what cannot be left alone for longer than a tick."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

TICK: Final = 0.1  # seconds


class _Watch:
    __slots__ = ("call", "fd", "order")

    def __init__(self, fd: int, call: Callable[[], None], order: int) -> None:
        self.fd, self.call, self.order = fd, call, order


class Loop:
    """Descriptors, and the function that is called when one has something to read, or its other end is gone."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watches: dict[int, _Watch] = {}
        self._unrest: set[Callable[[float], bool]] = set()
        self._next_tick = 0.0

    def watch(self, fd: int, call: Callable[[], None], order: int = 0) -> None:
        """Call *call* whenever *fd* is ready; in one turn, those of a lower *order* come first."""
        self._watches[fd] = _Watch(fd, call, order)
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Watch *fd* no more; before it is closed."""
        if self._watches.pop(fd, None):
            self._poll.unregister(fd)

    def tick(self, call: Callable[[float], bool]) -> None:
        """Call *call* with the time at each tick from now on, for as long as it returns True."""
        self._unrest.add(call)

    def turn(self) -> None:
        """Wait until something happens, and call those whom it concerns."""
        happened = [self._watches[fd] for fd, _ in self._poll.poll(TICK * 1000 if self._unrest else None)]
        for watch in sorted(happened, key=lambda watch: watch.order):
            if self._watches.get(watch.fd) is watch:  # or a call before closed it, and somebody else has its number
                watch.call()
        now = time.monotonic()
        if self._unrest and now >= self._next_tick:
            self._next_tick = now + TICK
            for call in [*self._unrest]:
                if not call(now):
                    self._unrest.discard(call)
