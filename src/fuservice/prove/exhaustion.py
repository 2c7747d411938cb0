"""Attempts to take more than its share. Each stops as soon as it has clearly more than any budget: the machine is shared.

A flood that came to its end before that raises BoundedError, which says where.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

from fuservice.linux.rawsyscall import buffer, call
from fuservice.prove.attempt import BoundedError, Subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.prove.ground import Ground

EXHAUSTION: Final = Subject("exhaustion")

PROCESSES: Final = 16
DESCRIPTORS: Final = 1_000
MEMORY: Final = 8 << 30  # bytes of address space, never touched
SHARED: Final = 64 << 20
TIMERS: Final = 100
FILE_SIZE: Final = 1 << 20
LINES: Final = 20_000
_CLOCK_MONOTONIC: Final = 1
_SIGEV_NONE: Final = 1


def _flood(most: int, what: str, step: Callable[[], object]) -> None:
    """Take *step* *most* times; BoundedError where it is refused before."""
    for count in range(most):
        try:
            step()
        except (OSError, MemoryError) as error:
            raise BoundedError(f"{count} {what}: {getattr(error, 'strerror', None) or 'no memory'}") from None


@EXHAUSTION.attempt("fork without end", "a machine that starts nothing any more", ("seccomp", "user+capabilities+limits"),
                    plain=["limits"])  # fmt: skip
def fork_bomb(_ground: Ground) -> None:
    """Make processes that wait for us."""
    us = os.getpid()

    def fork() -> None:
        if call("clone", 17, 0, 0, 0, 0) == 0:  # SIGCHLD
            while os.getppid() == us:  # they wait for us, and end with us
                time.sleep(0.01)
            call("exit_group", 0)

    _flood(PROCESSES, "processes", fork)


@EXHAUSTION.attempt("open descriptors without end", "kernel memory", ("seccomp", "limits"))
def descriptor_bomb(_ground: Ground) -> None:
    """Duplicate what it has."""
    _flood(DESCRIPTORS, "descriptors", lambda: call("dup", 0))


@EXHAUSTION.attempt("take memory without end", "a machine that swaps", ("limits",))
def memory_bomb(_ground: Ground) -> None:
    """Map memory, 64 MiB at a time; it is never touched."""
    kept: list[mmap.mmap] = []
    step = 64 << 20
    _flood(MEMORY // step, "times 64 MiB", lambda: kept.append(mmap.mmap(-1, step)))


@EXHAUSTION.attempt("hide memory in a file", "memory that no limit counts", ("seccomp", "limits"))
def hidden_memory(_ground: Ground) -> None:
    """Make a memory file larger than any file that it may write; no byte is written."""
    fd = call("memfd_create", b"attempt", 0)
    _flood(1, "large files", lambda: os.ftruncate(fd, FILE_SIZE))


@EXHAUSTION.attempt("lock memory", "memory that cannot be swapped", ("seccomp", "capabilities+limits"), privileged=True)
def lock_memory(_ground: Ground) -> None:
    """mlock(2) a little more than everybody may."""
    call("mlockall", 2)  # MCL_FUTURE
    _flood(1, "times 64 MiB", lambda: mmap.mmap(-1, SHARED))


@EXHAUSTION.attempt("make timers without end", "kernel memory, and interrupts", ("seccomp", "limits"))
def timer_flood(_ground: Ground) -> None:
    """timer_create(2)."""
    event = struct.pack("Pii", 0, 0, _SIGEV_NONE).ljust(64, b"\0")
    _flood(TIMERS, "timers", lambda: call("timer_create", _CLOCK_MONOTONIC, event, buffer(bytes(4))))


@EXHAUSTION.attempt("queue messages without end", "kernel memory that outlives it", ("landlock", "seccomp", "limits"))
def message_queue(ground: Ground) -> None:
    """Make a POSIX message queue."""
    call("mq_open", ground.queue.encode(), os.O_CREAT | os.O_RDWR, 0o600, None)


@EXHAUSTION.attempt("write into the log without end", "a full disk, and a log that hides what matters", (),
                    floods_log=True)  # fmt: skip
def log_bomb(_ground: Ground) -> None:
    """Write many lines; how many of them came out is seen at the other end."""
    for number in range(LINES // 100):
        os.write(2, b"".join(b"line %d\n" % (number * 100 + step) for step in range(100)))
