"""A server that a mount helper starts by itself: the same cage, without a listener, a socket in the file tree, or a daemon.

Nobody stays to look after it: the kernel itself kills it for a system call that its cage forbids, and its log is read for as
long as the helper lives. It is a copy of the helper, so what the caller's environment and command line say is in its memory;
its descriptors are not.
"""

from __future__ import annotations

import os
import select
import signal
import time

from fuservice.cage.plan import clone_flags
from fuservice.launch.child import Contained, become_server
from fuservice.launch.words import Words
from fuservice.linux import prctl
from fuservice.linux.clone import clone
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

PATIENCE: Final = 5.0  # seconds for a server to end by itself once its helper has hung up
_MOST_READS: Final = 16
_AT_ONCE: Final = 16_384  # bytes


class Direct:
    """A child of this process, and our end of its log. Its *connection* is the caller's."""

    def __init__(self, name: str, load: Callable[[], Contained]) -> None:
        """Start a server of type *name*, whose driver *load* imports there. OSError where there can be no process, or no cage."""
        self.connection, theirs = FdSeqPacket.pair()
        self._log, writing = map(Fd, os.pipe2(os.O_CLOEXEC))

        def load_there() -> Contained:
            prctl.set_dumpable(
                1
            )  # the helper's 0 gives /proc/self to root, and a plain user writes the maps of its ids there
            return load()

        with theirs, writing:
            try:
                self.pid = clone(clone_flags(Contained(len).cage((), supervised=False)))
            except OSError:
                self.connection.close()
                self._log.close()
                raise
            if self.pid == 0:
                become_server(name, (theirs.fileno(), writing.fileno()), load_there, (), supervised=False)

    def leave(self) -> list[str]:
        """Let the server live without us; return the lines that it has logged by now. Does not block."""
        os.set_blocking(self._log.fileno(), False)
        with self._log:
            return self._lines()

    def end(self) -> list[str]:
        """Wait until the server has ended, whose connection must be closed; kill it after PATIENCE. Return what it logged."""
        deadline = time.monotonic() + PATIENCE
        with Fd(os.pidfd_open(self.pid)) as pidfd:
            ended = select.poll()
            ended.register(pidfd.fileno(), select.POLLIN)
            if not ended.poll(max(deadline - time.monotonic(), 0) * 1000):
                os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
            os.waitpid(self.pid, 0)
        return self.leave()

    def _lines(self) -> list[str]:
        words, data, now = Words(), b"", time.monotonic()
        for _ in range(_MOST_READS):
            try:
                more = os.read(self._log.fileno(), _AT_ONCE)
            except BlockingIOError:
                break
            if not more:
                break
            data += more
        return [*(words.take(data, now) if data else ()), *words.take(b"", now)]
