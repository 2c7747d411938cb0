"""A program of the system's, run with a deadline: where it works, what it may say over a socket, and its words.

Not subprocess: that costs 12 ms to import, and enters a directory by path only.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from contextlib import suppress

from fuservice.errors import EXIT_NOT_FOUND
from fuservice.linux.fds import Closed, Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

CHANNEL: Final = 3  # its number in the program
MOST_WORDS: Final = 4096  # bytes of what it says that are looked at
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}  # nothing of the caller's


class Program(Closed):
    """A running program. Closing it ends it, if it has not ended."""

    def __init__(
        self, path: str, words: Sequence[str], *, directory: int, deadline: float, channel: int | None = None
    ) -> None:
        """Start *path* with *words* (its name first) in the directory that descriptor *directory* stands for.

        It inherits *channel*, as fusermount3 wants to be told of it. *deadline* is a time of time.monotonic(). OSError where no process can be made; where the program
        cannot be executed, it is as if it had said so.
        """
        self._deadline, self.name = deadline, os.path.basename(path)  # noqa: PTH119
        self._said, theirs = map(Fd, os.pipe2(os.O_CLOEXEC))
        self.status: int | None = None
        with theirs:
            self.pid = os.fork()
            if self.pid == 0:
                _become(path, words, directory, theirs.fileno(), channel)
        self._pidfd = Fd(os.pidfd_open(self.pid))

    def wait(self) -> int:
        """Return its exit status, negative for a signal. TimeoutError where it is still at work at the deadline."""
        if self.status is None:
            poll = select.poll()
            poll.register(self._pidfd.fileno(), select.POLLIN)
            if not poll.poll(max(self._deadline - time.monotonic(), 0) * 1000):
                raise TimeoutError
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def words(self) -> str:
        """Return what it has said by now, on its standard error. Does not block."""
        os.set_blocking(self._said.fileno(), False)
        with suppress(BlockingIOError):
            return os.read(self._said.fileno(), MOST_WORDS).decode("utf-8", "backslashreplace").strip()
        return ""

    def close(self) -> None:
        if self.status is None:
            # One that gained rights when it was executed is still ours to signal: its real uid is ours (kill(2)).
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
            self._deadline = time.monotonic() + 1.0  # where the kernel holds it, it stays, and is init's one day
            with suppress(TimeoutError):
                self.wait()
        self._pidfd.close()
        self._said.close()


def _become(path: str, words: Sequence[str], directory: int, said: int, channel: int | None) -> NoReturn:
    try:
        wanted = (os.open(os.devnull, os.O_RDWR), said, directory, *(() if channel is None else (channel,)))
        # First out of the way of the low numbers, any of which may be one of these.
        null, said, directory, *rest = (fcntl.fcntl(fd, fcntl.F_DUPFD, CHANNEL + 1) for fd in wanted)
        for place, fd in enumerate((null, null, said, *rest)):
            os.dup2(fd, place)
        os.fchdir(directory)
        os.closerange(CHANNEL + len(rest), os.sysconf("SC_OPEN_MAX"))
        told = {"_FUSE_COMMFD": str(CHANNEL)} if rest else {}
        os.execve(path, list(words), _ENVIRONMENT | told)
    except OSError as error:
        os.write(2, f"{path}: {error.strerror}\n".encode())
    finally:
        os._exit(EXIT_NOT_FOUND)
