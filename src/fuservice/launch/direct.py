"""A server that a mount helper starts by itself: the same cage, without a listener, and without a socket in the file tree.

The helper forks a supervisor, who clones the server, as for a connection of inetd's (``single``), and stays for as long as the
mount does. He is a copy of the helper, so what the caller's environment and command line say is in his memory, and in the
server's; the helper's descriptors are not.
"""

from __future__ import annotations

import os
import select
import signal
import syslog

from fuservice.errors import EXIT_BUG, EXIT_FAILURE, EXIT_OK
from fuservice.launch.child import SOCKET_FD, Contained, leave_open, told
from fuservice.launch.single import serve_one
from fuservice.linux import namespaces, pivot, prctl
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

    from fuservice.launch.state import States

NAME: Final = "fuservice-direct"  # what ps(1) calls a supervisor
PATIENCE: Final = 5.0  # seconds for a server to end by itself once its helper has hung up
_AT_ONCE: Final = 65_536  # bytes: what a pipe holds


class Direct:
    """A supervisor, who is our child; our end of the *log* that he writes. The *connection* to his server is the caller's."""

    def __init__(self, name: str, load: Callable[[], Contained], states: States) -> None:
        """Start a server of type *name*; *load* imports its driver, there. OSError where no process can be made."""
        self.connection, theirs = FdSeqPacket.pair()
        self.log, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
        with theirs, writing:
            self.pid = os.fork()
            if self.pid == 0:
                _supervise(name, theirs.fileno(), writing.fileno(), load, states)

    def leave(self) -> list[str]:
        """Let them live without us; return the lines that were logged by now, none the second time. Does not block."""
        if self.log.closed:
            return []
        os.set_blocking(self.log.fileno(), False)
        with self.log:
            try:
                return os.read(self.log.fileno(), _AT_ONCE).decode("utf-8", "backslashreplace").splitlines()
            except BlockingIOError:
                return []

    def end(self) -> list[str]:
        """Wait until both have ended, now that the connection is closed; kill after PATIENCE. Return what was logged."""
        with Fd(os.pidfd_open(self.pid)) as pidfd:
            ended = select.poll()
            ended.register(pidfd.fileno(), select.POLLIN)
            if not ended.poll(PATIENCE * 1000):
                os.kill(
                    self.pid, signal.SIGKILL
                )  # not reaped yet, so the number is still his own; his server dies with him
            os.waitpid(self.pid, 0)
        return self.leave()


def _supervise(name: str, connection: int, log: int, load: Callable[[], Contained], states: States) -> NoReturn:
    """Be the supervisor, and end."""
    code = EXIT_BUG
    try:
        os.setsid()
        os.chdir("/")
        if os.geteuid() == 0:  # or we would keep the mount namespace of the caller alive, and with it the mount
            namespaces.unshare(namespaces.CLONE_NEWNS)
            pivot.make_all_private()
        leave_open(connection, log)
        prctl.set_name(NAME)
        prctl.set_dumpable(
            1
        )  # the helper's 0 gives /proc/self to root, and a plain user's server writes its ids' maps there
        syslog.openlog(NAME, syslog.LOG_PID, syslog.LOG_DAEMON)
        ended_well = serve_one(
            name, FdSeqPacket(Fd(SOCKET_FD)), load(), without=(), facts={"cage": "whole"}, states=states, log=_log
        )
        code = EXIT_OK if ended_well else EXIT_FAILURE
    except BaseException as error:  # noqa: BLE001  # there is nobody above us: log it, and leave by _exit whatever it was
        _log(syslog.LOG_ERR, told(error).rstrip("\n"))
    finally:
        os._exit(code)


def _log(level: int, line: str) -> None:
    """Say *line* to the helper, or to syslog(3) once he has gone; not that a server has failed, which has said why itself."""
    if line.endswith(f"exit status {EXIT_FAILURE}"):
        return
    try:
        os.write(2, f"{line}\n".encode())
    except OSError:
        syslog.syslog(level, line)
