"""A server that a mount helper starts by itself: the same cage, without a listener, and without a socket in the file tree.

The helper forks a supervisor, who clones the server, as for a connection of inetd's (``single``), and stays for as long as the
mount does. He is a copy of the helper, so what the caller's environment and command line say is in his memory, and in the
server's; the helper's descriptors are not. Where something is to be done in the end, a guard comes between the two (``guard``).
"""

from __future__ import annotations

import os
import signal
import syslog
from contextlib import suppress
from functools import partial

from fuservice.errors import EXIT_BUG, EXIT_FAILURE, EXIT_OK
from fuservice.launch.child import SOCKET_FD, Contained, leave_open, told
from fuservice.launch.guard import guard
from fuservice.launch.single import serve_one
from fuservice.launch.waiting import ends_within
from fuservice.linux import prctl
from fuservice.linux.fds import Closed, Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, NoReturn

    from fuservice.launch.guard import Ended
    from fuservice.launch.restart import Restart
    from fuservice.launch.state import States

NAME: Final = "fuservice-direct"  # what ps(1) calls a supervisor
PATIENCE: Final = 5.0  # seconds for a server to end by itself once its helper has hung up
_SHOWN: Final = NAME[:15]  # the kernel keeps no more
_AT_ONCE: Final = 65_536  # bytes: what a pipe holds


class Direct:
    """A supervisor, or his guard, who is our child; our end of the *log* that he writes.

    The *connection* to his server is the caller's.
    """

    def __init__(
        self, name: str, load: Callable[[], Contained], states: States,
        over: Callable[[Ended, Callable[[str], None]], None] | None = None, keep: Callable[[str], None] | None = None,
        restart: Restart | None = None,
    ) -> None:  # fmt: skip
        """Start a server of type *name*; *load* imports its driver, there. OSError where no process can be made.

        *over* is called in the end, in a process that stays for it, with how it ended and a function that logs a line. *keep* is
        called there too, with each line that is logged when we have gone. *restart*: where the server dies, others may follow it.
        """
        self.connection, theirs = FdSeqPacket.pair()
        self.log, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
        words: Fd | None = None
        self._words: Fd | None = None
        if over is not None:
            words, self._words = map(Fd, os.pipe2(os.O_CLOEXEC))

        log = partial(_log, keep)

        def supervise(*report: int) -> NoReturn:
            _supervise(name, (theirs.fileno(), writing.fileno(), *report), load, states, log, restart)

        with theirs, writing, words or Closed():
            self.pid = os.fork()
            if self.pid == 0 and over is not None and words is not None:
                syslog.openlog(NAME, syslog.LOG_PID, syslog.LOG_DAEMON)
                guard(
                    supervise, (_SHOWN,), words=words.fileno(), log=writing.fileno(),
                    over=lambda ended: over(ended, partial(log, syslog.LOG_WARNING)), failed=partial(_failed, log),
                )  # fmt: skip
            if self.pid == 0:
                supervise()

    def leave(self, facts: Mapping[str, str] | None = None) -> list[str]:
        """Let them live without us; return the lines that were logged by now, none the second time. Does not block.

        *facts*: our last words to whoever is told of the end (``guard.Ended``).
        """
        if self._words is not None and not self._words.closed:
            text = "".join(f"{key}={value}\0" for key, value in (facts or {}).items())
            with self._words, suppress(BrokenPipeError):  # he may have been killed
                os.write(self._words.fileno(), os.fsencode(text))
        return self._logged()

    def _logged(self) -> list[str]:
        if self.log.closed:
            return []
        os.set_blocking(self.log.fileno(), False)
        with self.log:
            try:
                return os.read(self.log.fileno(), _AT_ONCE).decode("utf-8", "backslashreplace").splitlines()
            except BlockingIOError:
                return []

    def end(self) -> list[str]:
        """Wait until all have ended, now that the connection is closed; end them after PATIENCE. Return what was logged."""
        if self._words is not None:
            self._words.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if ends_within(self.pid, PATIENCE):
                break
            os.kill(self.pid, number)
        os.waitpid(self.pid, 0)
        return self._logged()


def _supervise(
    name: str, fds: tuple[int, ...], load: Callable[[], Contained], states: States, log: Callable[[int, str], None],
    restart: Restart | None,
) -> NoReturn:  # fmt: skip
    """Be the supervisor, and end. *fds*: connection, log, and where to report if somebody wants to know."""
    code = EXIT_BUG
    try:
        os.setsid()
        os.chdir("/")
        leave_open(*fds)
        prctl.set_name(NAME)
        prctl.set_dumpable(
            1
        )  # the helper's 0 gives /proc/self to root, and a plain user's server writes its ids' maps there
        syslog.openlog(NAME, syslog.LOG_PID, syslog.LOG_DAEMON)
        server = serve_one(
            name, FdSeqPacket(Fd(SOCKET_FD)), load(), without=(), facts={"cage": "whole"}, states=states, log=log, restart=restart
        )  # fmt: skip
        if fds[2:]:
            os.write(SOCKET_FD + 1, f"{server.device}\0{server.why}".encode("utf-8", "backslashreplace"))
        code = EXIT_FAILURE if server.why else EXIT_OK
    except BaseException as error:  # noqa: BLE001  # there is nobody above us: log it, and leave by _exit whatever it was
        _failed(log, error)
    finally:
        os._exit(code)


def _failed(log: Callable[[int, str], None], error: BaseException) -> None:
    log(syslog.LOG_ERR, told(error).rstrip("\n"))


def _log(keep: Callable[[str], None] | None, level: int, line: str) -> None:
    """Say *line* to the helper, or to syslog(3), and to whoever is to *keep* it, once he has gone; not that a server has failed, which has said why itself."""
    if line.endswith(f"exit status {EXIT_FAILURE}"):
        return
    try:
        os.write(2, f"{line}\n".encode())
    except OSError:
        syslog.syslog(level, line)
        if keep is not None:
            keep(line)
