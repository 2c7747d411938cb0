"""Threads that are started before a process is contained, since none can be started afterwards. They wait for something to do.

A thread that ends asks for system calls that a cage does not allow, so these never do; they go with their process.
"""

from __future__ import annotations

import _thread
import ctypes
from contextlib import suppress

from fuservice.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
#: As a main thread has by default, for whatever recurses in C; only what is touched is memory.
_STACK_BYTES: Final = 8 << 20

_spare: list[Spare] = []


class Spare:
    """A thread that waits for its task; call it with one. It takes the next one when that returns."""

    __slots__ = ("_here", "_task", "_wake")

    def __init__(self) -> None:
        """Start it, and return once it waits: from then on it asks for nothing but futex(2). OSError where there can be none."""
        self._here, self._wake = _thread.allocate_lock(), _thread.allocate_lock()
        self._task: Callable[[], object] = int
        self._here.acquire()
        self._wake.acquire()
        try:
            _thread.start_new_thread(self._wait, ())
        except RuntimeError as error:  # as Python says EAGAIN
            raise OSError(f"no thread can be started: {error}") from None
        self._here.acquire()

    def __call__(self, task: Callable[[], object]) -> None:
        """Let the thread do *task*, which tells its failures itself: what it raises goes nowhere."""
        self._task = task
        self._wake.release()

    def _wait(self) -> None:
        self._here.release()
        while True:
            with suppress(BaseException):
                self._wake.acquire()
                self._task()


def start(count: int) -> None:
    """Start *count* spare threads, with the credentials and filters of the calling one. OSError where one cannot be started.

    All of them share one heap from now on: another one's growth would be mprotect(2)'s, and its size asked of /proc.
    """
    with suppress(AttributeError):  # another libc than glibc has one heap anyway
        libc.declare("mallopt", ctypes.c_int, ctypes.c_int)(_M_ARENA_MAX, 1)
    before = _thread.stack_size(_STACK_BYTES)
    try:
        _spare.extend(Spare() for _ in range(count))
    finally:
        _thread.stack_size(before)


def take() -> list[Spare]:
    """Return the spare threads there are, which are the caller's from now on."""
    taken = _spare[:]
    _spare.clear()
    return taken


def interrupt(thread: int, error: type[BaseException]) -> None:
    """Raise *error* in Python's thread number *thread*: where it is, or behind the call into C in which it is."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
