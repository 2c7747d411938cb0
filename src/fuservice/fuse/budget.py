"""What a mount may use: limits on what an image can make its server do, counted. Pure: no clock, no I/O.

Rule: what goes over a budget fails that one request with :class:`BudgetError`, whose errno tells its kind; it is counted,
logged once per budget, and the mount lives on. The engine keeps all but two budgets by itself; those on inflating are kept
by the drivers that inflate, which call :meth:`Budgets.inflated`. Memory is the cage's budget: MemoryError is EIO.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

#: Name → limit, errno, what is counted. A driver changes limits by ``Driver.limits``; who mounts cannot.
DEFAULTS: Final = {
    # A seek in a stream without an index inflates all that lies before: a gibibyte is some seconds of work.
    "inflated": (1 << 30, errno.EFBIG, "bytes inflated for one request"),
    # Deflate cannot exceed 1,032; formats that can are used for bombs, and for zeros, of which RATIO_FROM are free.
    "ratio": (2_000, errno.EFBIG, "bytes inflated from each byte"),
    # ext4's two-level index ends near 10 million, and a listing costs its reader 280 bytes a name.
    "entries": (1 << 24, errno.EFBIG, "entries of one directory"),
    # Twice what one path name (PATH_MAX) can lead to; behind it are only trees made to break recursive programs.
    "depth": (4_096, errno.ENAMETOOLONG, "names below each other"),
    # 64 times what one process may open by default: a whole build, but no leak. Not EMFILE, which blames the caller.
    "handles": (65_536, errno.ENFILE, "open files and directories"),
    # 250 bytes each, measured: half of the 1 GiB that the cage grants, so this is met before a MemoryError.
    "nodes": (1 << 21, errno.ENOMEM, "files that the kernel remembers"),
    # Longer than a slow disk needs for the 1 MiB of a read, shorter than the patience of whoever waits.
    "time": (30_000, errno.ETIMEDOUT, "milliseconds for one request"),
    # Inside of the 5 minutes that the mount helper waits: the error comes before it hangs up.
    "start": (240_000, errno.ETIMEDOUT, "milliseconds for opening the image"),
}  # fmt: skip
#: From so many bytes inflated for one request on, their ratio counts: what fits into memory harms nobody.
RATIO_FROM: Final = 1 << 24


class BudgetError(OSError):
    """A budget is used up: which (``budget``), what would have been ``used``, and its ``limit``."""

    def __init__(self, budget: Budget, used: int) -> None:
        self.budget, self.used, self.limit = budget.name, used, budget.limit
        super().__init__(budget.errno, f"over the budget of {budget.limit} {budget.what}: {used}")

    def __str__(self) -> str:
        return str(self.strerror)


class Budget:
    """One budget: ``peak`` is the most that was granted so far, ``overruns`` how often more was wanted."""

    __slots__ = ("errno", "limit", "name", "overruns", "peak", "what")

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        _, self.errno, self.what = DEFAULTS[name]
        self.peak = self.overruns = 0

    def need(self, used: int) -> None:
        """Grant *used* in all, or raise BudgetError. Nothing up to ``peak`` needs asking: callers in a hurry may compare."""
        if used > self.peak:
            if used > self.limit:
                self.overruns += 1
                raise BudgetError(self, used)
            self.peak = used


class Worker:
    """One thread that serves requests, as the watch over their time sees it.

    ``thread`` is Python's number of it, 0 for the main one. ``waits``: for a disk, while others serve; ``overdue`` is how many
    milliseconds its request has taken, once that is too much and it waits. ``seen`` and ``ticks`` are the watch's own.
    """

    __slots__ = ("overdue", "seen", "thread", "ticks", "waits")

    def __init__(self) -> None:
        self.thread = self.overdue = self.seen = self.ticks = 0
        self.waits = False

    def unique(self) -> int:
        """Return the number of the request that is served, or was last; 0 while the image is opened."""
        return 0


class Budgets:
    """The budgets of one mount; *limits* replaces defaults, by name (KeyError for a name that is none)."""

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        wanted = {name: limit for name, (limit, _, _) in DEFAULTS.items()} | dict(limits or {})
        self._all = [Budget(name, limit) for name, limit in wanted.items()]
        self.bytes, self.ratio, self.entries, self.depth, self.handles, self.nodes, self.time, self.start = self._all
        #: Whose requests these budgets are for; the session's, as soon as there is one.
        self.workers: Sequence[Worker] = (Worker(),)
        #: The one that runs a driver's code, where there are several.
        self.running: Callable[[], Worker] = self._first
        #: Of the request that inflates: its number, bytes in, bytes out. Whoever lets another request come between keeps it.
        self.counted = (0, 0, 0)

    def _first(self) -> Worker:
        return self.workers[0]

    def inflated(self, *, compressed: int, plain: int) -> None:
        """Count what a driver has made: *plain* bytes out of *compressed* ones. BudgetError ends the request.

        For drivers. Inflate in pieces with a bound (``max_length`` of zlib's ``decompress``), and call this after each.
        """
        request = self.running().unique()
        before, before_compressed, before_plain = self.counted
        if request == before:
            compressed, plain = before_compressed + compressed, before_plain + plain
        self.counted = request, compressed, plain
        if request:  # opening may inflate all there is, for an index; its time and the ratio bound it
            self.bytes.need(plain)
        if plain > RATIO_FROM:
            self.ratio.need(plain // max(compressed, 1))

    def overruns(self) -> int:
        """Return how many requests went over any budget."""
        return sum(budget.overruns for budget in self._all)

    def facts(self) -> dict[str, str]:
        """Return ``budget_NAME`` → ``PEAK/LIMIT/OVERRUNS``, for all budgets."""
        return {f"budget_{b.name}": f"{b.peak}/{b.limit}/{b.overruns}" for b in self._all}
