"""Starts with a supervisor, who reads the log, and kills for a system call that the cage forbids after he has named it.

He is a child of ours, and writes his log to us: what he says of a server is how we learn of its end.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import tempfile
import time
from contextlib import suppress

from fuservice.errors import EXIT_BUG, EXIT_OK, SystemCallError
from fuservice.launch import warm
from fuservice.launch.activator import Activator
from fuservice.launch.direct import Direct
from fuservice.launch.single import serve_one
from fuservice.launch.state import States
from fuservice.linux import prctl
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.linux.notify import Manager
from fuservice.prove.probe import DIED, KILLED, READY
from fuservice.prove.starts import Served, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, NoReturn

    from fuservice.launch.child import Contained
    from fuservice.linux.sockets import SeqPacket

PATIENCE: Final = 30.0  # seconds to start, the import of the driver among them
LAST_WORDS: Final = 5.0  # seconds for the supervisor to say how a server has ended
_LISTENING: Final = "listening"
_KILLED: Final = r"killed: tried the system call (.*), which its cage forbids"
_ENDED: Final = r"server ended with (.*)"
_SUPPRESSED: Final = r"\d+ lines suppressed"


class Lines:
    """The log of a supervisor, line by line; owns the pipe that it comes through."""

    def __init__(self, pipe: Fd) -> None:
        self._pipe, self._rest, self._lines = pipe, b"", list[str]()

    def close(self) -> None:
        """Close the pipe."""
        self._pipe.close()

    def find(self, pattern: str, seconds: float) -> re.Match[str] | None:
        """Return the first match of *pattern* in a line, from which on lines are forgotten; None after *seconds*."""
        deadline = time.monotonic() + seconds
        while True:
            for place, line in enumerate(self._lines):
                if found := re.search(pattern, line):
                    del self._lines[place]
                    return found
            if not self._read(deadline - time.monotonic()):
                return None

    def _read(self, seconds: float) -> bool:
        """Take what has come, or comes within *seconds*; False where nothing did."""
        poll = select.poll()
        poll.register(self._pipe.fileno(), select.POLLIN)
        data = os.read(self._pipe.fileno(), 65_536) if poll.poll(max(seconds, 0) * 1000) else b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += [line.decode(errors="replace") for line in lines]
        return bool(data)

    def all(self) -> str:
        """Return what was not looked for."""
        return "; ".join(self._lines)


class Supervised(Served):
    """A server of which a log tells."""

    def __init__(self, socket: SeqPacket, lines: Lines) -> None:
        """Wait until it is in its cage; SystemCallError with the supervisor's words where it does not get there."""
        self.socket, self._lines = socket, lines
        ready = lines.find(rf"\[(\d+)\][^:]*: {READY.decode()}$", PATIENCE)
        if ready is None:
            socket.close()
            raise SystemCallError(f"no server was started: {lines.all() or 'without a word'}")
        self.pid = self._number = int(ready[1])

    def ending(self) -> tuple[str, str]:
        if (found := self._lines.find(rf"\[{self._number}\][^:]*: (?:{_KILLED}|{_ENDED})", LAST_WORDS)) is None:
            return DIED, "without a word"
        call, how = found.groups()
        return (KILLED, f"by seccomp ({call})") if call else (DIED, how)

    def suppressed(self) -> str | None:
        found = self._lines.find(rf"\[{self._number}\][^:]*: {_SUPPRESSED}", LAST_WORDS)
        return found[0] if found else None

    def close(self) -> None:
        self.socket.close()


class Listening(Start):
    """A listener, with its warm process: *command* is that of the warm process for type *name*."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """Start it, and wait until it listens. SystemCallError with its words where it does not."""
        self._directory, self._name = tempfile.mkdtemp(prefix="fuservice-prove-"), name
        os.chmod(self._directory, 0o755)  # noqa: PTH101
        program = [*command, *warm.arguments(name, (), 0)]

        def listen(log: Callable[[int, str], None]) -> None:
            activator = Activator(
                {name: program}, self._directory, log=log, states=States(""), manager=Manager({}), facts={}
            )
            activator.run(lambda _paths: log(0, _LISTENING))

        self._pid, self._lines = _supervisor(listen)
        if self._lines.find(f"^{_LISTENING}$", PATIENCE) is None:
            words = self._lines.all()
            self.close()
            raise SystemCallError(f"the listener does not listen: {words or 'without a word'}")

    def connect(self) -> Supervised:
        return Supervised(FdSeqPacket.connect(f"{self._directory}/{self._name}", PATIENCE), self._lines)

    def close(self) -> None:
        for _ in range(2):  # the second one ends the servers too
            os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        self._lines.close()
        with suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{self._name}")  # noqa: PTH108
        os.rmdir(self._directory)  # noqa: PTH106


class Single(Start):
    """A supervisor for each server, as systemd and inetd start it."""

    def __init__(self, name: str, contained: Contained) -> None:
        self._name, self._contained = name, contained

    def connect(self) -> SingleServed:
        ours, theirs = FdSeqPacket.pair()

        def serve(log: Callable[[int, str], None]) -> None:
            ours.close()
            serve_one(self._name, theirs, self._contained, without=(), facts={}, states=States(""), log=log)

        pid, lines = _supervisor(serve)
        theirs.close()
        return SingleServed(ours, lines, pid)


class Directly(Single):
    """The same, as a mount helper starts it."""

    def connect(self) -> SingleServed:
        direct = Direct(self._name, lambda: self._contained, States(""))
        return SingleServed(direct.connection, Lines(direct.log), direct.pid)


class SingleServed(Supervised):
    """A server whose supervisor is its alone."""

    def __init__(self, socket: SeqPacket, lines: Lines, supervisor: int) -> None:
        self._supervisor = supervisor
        super().__init__(socket, lines)

    def close(self) -> None:
        super().close()
        os.kill(self._supervisor, signal.SIGTERM)
        os.waitpid(self._supervisor, 0)
        self._lines.close()


def _supervisor(run: Callable[[Callable[[int, str], None]], None]) -> tuple[int, Lines]:
    """Fork a supervisor, who *run*s with a log of his own, and dies with us; return his pid, and his log."""
    reading, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
    us = os.getpid()
    with writing:
        if (pid := os.fork()) == 0:
            prctl.set_parent_death_signal(signal.SIGKILL)
            if os.getppid() == us:
                _supervise(run, writing.fileno())
            os.kill(os.getpid(), signal.SIGKILL)
    return pid, Lines(reading)


def _supervise(run: Callable[[Callable[[int, str], None]], None], pipe: int) -> NoReturn:
    code = EXIT_BUG
    try:
        run(lambda _level, line: _write(pipe, line))
        code = EXIT_OK
    except BaseException as error:  # noqa: BLE001  # there is nobody above us: say it, and leave by _exit whatever it was
        _write(pipe, f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _write(pipe: int, line: str) -> None:
    with suppress(OSError):
        os.write(pipe, f"{line}\n".encode())


def command(module: str) -> list[str]:
    """Return how this Python runs *module* on its own."""
    return [sys.executable, "-I", "-m", module]
