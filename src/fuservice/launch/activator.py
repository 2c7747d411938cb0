"""``fuservice listen``: one socket for each type, one caged server process for each connection.

The drivers are imported before the first connection, so a server is a fork away. One thread, one poll loop: listening
sockets, the servers' log pipes, their pidfds, and signals.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import stat
from contextlib import suppress

from fuservice.errors import PolicyError, SystemCallError, UsageError, printable
from fuservice.launch.child import become_server
from fuservice.linux.fds import Fd
from fuservice.linux.listener import Listener
from fuservice.linux.sockets import SeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from fuservice.cage.operations import Operation

MOST_SERVERS: Final = 1_000  # in all; a connection beyond is closed, which its helper is told as a server that hung up
_OWN_DESCRIPTORS: Final = 64  # of the listener itself, and of a server while it is made; each server costs two more
LONGEST_LINE: Final = 2_000  # bytes of one line of a server's log
LONGEST_NAME: Final = 64
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


class Server:
    """One live server process; owns its pidfd and the reading end of its log."""

    def __init__(self, name: str, pid: int, log: Fd) -> None:
        self.name, self.pid, self.log = name, pid, log
        self.pidfd = Fd(os.pidfd_open(pid))
        self.rest = b""  # the beginning of a line that is not complete yet
        self.ended = False  # whether the server has closed its end of the log

    def lines(self) -> list[str]:
        """Return the log lines that arrived, without blocking."""
        try:
            data = os.read(self.log.fileno(), 65_536)
        except BlockingIOError:
            return []
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b"\n")
        if not data or len(self.rest) > LONGEST_LINE:
            lines, self.rest = [*lines, self.rest], b""
        return [f"{self.name}[{self.pid}]: {printable(line)}" for line in lines if line]

    def reap(self) -> str | None:
        """Collect the ended process; return a sentence where it did not end well."""
        ended = os.waitid(os.P_PIDFD, self.pidfd.fileno(), os.WEXITED)
        self.pidfd.close()
        if ended is None or ended.si_status == 0:
            return None
        how = "exit status" if ended.si_code == os.CLD_EXITED else "signal"
        return f"{self.name}[{self.pid}]: server ended with {how} {ended.si_status}"


class Activator:
    """Listens until it is told to end by SIGTERM or SIGINT."""

    def __init__(
        self, services: Mapping[str, Callable[[], int]], directory: str, *,
        cage: Sequence[Operation], log: Callable[[str], None], mode: int = 0o220,
    ) -> None:  # fmt: skip
        """*services*: type name → what its server process does, returning its exit code. Nothing is bound before run()."""
        for name in services:
            check_name(name)
        self._services, self._directory, self._mode = services, directory, mode
        self._cage, self._log = cage, log
        self._listeners: dict[int, tuple[str, Listener]] = {}
        self._by_log: dict[int, Server] = {}
        self._by_pidfd: dict[int, Server] = {}
        self._poll = select.poll()
        self._most_servers = MOST_SERVERS
        self._ending = 0

    def run(self, ready: Callable[[list[str]], None]) -> None:
        """Listen; *ready* gets the socket paths once all are bound. Returns after SIGTERM or SIGINT, when no server is left.

        A second signal ends it at once; the servers go on serving their mounts.
        """
        self._most_servers = make_room()
        wake = self._catch_signals()
        try:
            self._bind()
            ready([listener.path for _, listener in self._listeners.values()])
            while self._ending == 0 or (self._ending == 1 and self._by_pidfd):
                self._turn(wake)
        finally:
            self._unbind()
            self._let_go()
            signal.set_wakeup_fd(-1)
            wake.close()

    def _catch_signals(self) -> Fd:
        """Turn signals into bytes that poll sees: handlers alone would race with it."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake_writer = Fd(writing)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self._poll.register(reading, select.POLLIN)
        return Fd(reading)

    def _end(self, _number: int, _frame: object) -> None:
        self._ending += 1

    def _bind(self) -> None:
        prepare_directory(self._directory)
        for name in self._services:
            path = f"{self._directory}/{name}"
            clear_stale(path)
            try:
                listener = Listener(path, self._mode)
            except OSError as error:
                raise SystemCallError(f"{path}: cannot listen there: {error.strerror}") from None
            self._listeners[listener.fileno()] = (name, listener)
            self._poll.register(listener.fileno(), select.POLLIN)

    def _unbind(self) -> None:
        for _, listener in self._listeners.values():
            self._poll.unregister(listener.fileno())
            with suppress(FileNotFoundError):  # somebody tidied up before us
                os.unlink(listener.path)  # noqa: PTH108
            listener.close()
        self._listeners.clear()

    def _let_go(self) -> None:
        for server in self._by_pidfd.values():
            self._log(f"{server.name}[{server.pid}]: goes on serving its mount without a log")
            server.pidfd.close()
            server.log.close()
        self._wake_writer.close()

    def _turn(self, wake: Fd) -> None:
        """Wait for something to happen, and deal with it: logs before deaths, so that last words come first."""
        happened = [fd for fd, _ in self._poll.poll()]
        if wake.fileno() in happened:
            os.read(wake.fileno(), 512)
            if self._ending:
                self._unbind()
        for fd in happened:
            if fd in self._by_log:
                self._read_log(self._by_log[fd])
        for fd in happened:
            if fd in self._by_pidfd:
                self._bury(fd)
        for fd in happened:  # last: a new server gets numbers that a buried one had
            if fd in self._listeners:
                self._start(*self._listeners[fd])

    def _read_log(self, server: Server) -> None:
        for line in server.lines():
            self._log(line)
        if server.ended:  # or poll would tell us so for as long as the server lives
            self._close_log(server)

    def _close_log(self, server: Server) -> None:
        self._poll.unregister(server.log.fileno())
        del self._by_log[server.log.fileno()]
        server.log.close()

    def _bury(self, pidfd: int) -> None:
        server = self._by_pidfd.pop(pidfd)
        self._poll.unregister(pidfd)
        for _ in range(2):  # its last words may lack their newline: they come out with the end of file
            if not server.log.closed:
                self._read_log(server)
        if sentence := server.reap():
            self._log(sentence)
        if not server.log.closed:  # somebody else holds the other end
            self._close_log(server)

    def _start(self, name: str, listener: Listener) -> None:
        try:
            connection = listener.accept()
        except OSError as error:  # the peer is gone already, or we are out of descriptors: the next one may fare better
            self._log(f"{name}: cannot accept: {error.strerror}")
            return
        with connection:
            if len(self._by_pidfd) >= self._most_servers:
                most, uid = self._most_servers, connection.peer().uid
                self._log(f"{name}: {most} servers are alive, which is the most: refused uid {uid}")
                return
            try:
                self._fork(name, connection)
            except OSError as error:
                self._log(f"{name}: cannot start a server: {error.strerror}")

    def _fork(self, name: str, connection: SeqPacket) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with Fd(writing):
            log = Fd(reading)
            os.set_blocking(reading, False)
            try:
                pid = os.fork()
            except OSError:
                log.close()
                raise
            if pid == 0:
                become_server(connection.fileno(), writing, self._cage, self._services[name])
        server = Server(name, pid, log)
        self._by_log[log.fileno()] = self._by_pidfd[server.pidfd.fileno()] = server
        self._poll.register(log.fileno(), select.POLLIN)
        self._poll.register(server.pidfd.fileno(), select.POLLIN)


def make_room() -> int:
    """Raise our limit of descriptors as far as is needed and allowed; return for how many servers it suffices.

    Without it accept(2) would fail long before MOST_SERVERS, and poll report the same connection again and again.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_SERVERS + _OWN_DESCRIPTORS
    soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MOST_SERVERS, max(1, (soft - _OWN_DESCRIPTORS) // 2))


def check_name(name: str) -> None:
    """UsageError unless *name* can be the name of a type, hence of a socket (docs/SECURITY.md, rule 9)."""
    if not (1 <= len(name) <= LONGEST_NAME and _NAME_CHARACTERS.issuperset(name)) or name in (".", ".."):
        raise UsageError(
            f"`{name}' is no type name: expected 1 to {LONGEST_NAME} of the characters A-Z a-z 0-9 . _ + -"
        )


def prepare_directory(path: str) -> None:
    """Make *path* if it is missing; PolicyError where others could put a socket of theirs into it."""
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103
        status = os.lstat(path)
    except OSError as error:
        raise SystemCallError(f"{path}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise PolicyError(f"{path}: is not a directory")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise PolicyError(
            f"{path}: has owner {status.st_uid} and mode {status.st_mode & 0o7777:o}; a socket directory must be root's or "
            "yours, and writable by its owner alone (chmod go-w)"
        )


def clear_stale(path: str) -> None:
    """Remove the socket of a dead listener; PolicyError where somebody listens, or where it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise PolicyError(f"{path}: is in the way, and is not a socket")
        SeqPacket.connect(path, 1.0).close()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ECONNREFUSED:
            raise SystemCallError(f"{path}: {error.strerror}") from None
        os.unlink(path)  # noqa: PTH108
        return
    raise PolicyError(f"{path}: somebody listens there already")
