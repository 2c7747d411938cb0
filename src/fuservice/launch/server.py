"""One live server, as its listener sees it: its words, its cage, the system calls that killed it, its end."""

from __future__ import annotations

import os
import signal
import time

from fuservice.errors import printable
from fuservice.launch.child import DEVICE, ENTERED, IMAGE
from fuservice.launch.keeper import ERROR, WARNING
from fuservice.launch.lifetime import Lifetime
from fuservice.launch.state import start_time
from fuservice.launch.voice import Voice
from fuservice.linux import seccomp
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from fuservice.launch.birth import Birth
    from fuservice.launch.loop import Loop
    from fuservice.launch.restart import Restart
    from fuservice.launch.state import States

NOTICE: Final = 5
LONGEST_ENTRY: Final = 30.0  # seconds from birth to cage, the import of a cold driver among them
_ROOM: Final = 64  # bytes of a packet of the hand-over: what counts is the descriptor


class Server:
    """A child process that nobody but us reaps: until then its pid is its own."""

    def __init__(
        self, birth: Birth, pid: int, loop: Loop, states: States, facts: Mapping[str, str], *,
        log: Callable[[int, str], None], entered: Callable[[], None], restart: Restart | None = None,
    ) -> None:  # fmt: skip
        """Take over what *birth* has for us, and record *facts* too. *entered* is called once: it is in its cage, or dead.

        *restart* is given what it shows, for a successor of it.
        """
        self.name, self.caller, self.pid, self.trial = birth.name, birth.caller, pid, birth.trial
        self._loop, self._states, self._log, self._entered = loop, states, log, entered
        self._facts: dict[str, str | int] = {
            "pid": pid, "start": start_time(pid), "type": birth.name, "caller": birth.caller, **facts
        }  # fmt: skip
        self._supervision: Fd | None = None
        self._lifetime: Lifetime | None = None
        self._restart = restart
        self._outside, self._born = True, time.monotonic()
        self.why = ""  #: why it ended, once it has: the reason for which it was killed, or else how; "" for well
        self.was_killed = False  #: by a signal, and not by us
        self.device = ""  #: the device number of the mount that it had, once it has ended; "" without one
        pipe, self._handover = birth.leave()
        self._voice = Voice(loop, pipe, self._say, news=self._hear_news)
        loop.watch(self._handover.fileno(), self._hear)
        loop.tick(self._check)
        self._record()

    def _label(self) -> str:
        mount_point = self._voice.words.status.get("mountpoint") if self._facts else None
        return f"{self.name}[{self.pid}]{f' on {mount_point}' if mount_point else ''}"

    def _say(self, line: str) -> None:
        self._log(NOTICE, f"{self._label()}: {line}")

    def _hear_news(self) -> None:
        if self._lifetime is not None:
            self._lifetime.look()  # it says where it is mounted, once it is
        self._record()

    def _record(self) -> None:
        """Write down what is known of it."""
        if not self.trial:
            status = {f"status.{key}": value for key, value in self._voice.words.status.items()}
            if self._lifetime is not None and self._lifetime.device:
                status["device"] = self._lifetime.device
            self._states.write(self.pid, self._facts | status)

    def _hear(self) -> None:
        """Take the seccomp listener, if there is to be one, and the fuse device; or hear that it has entered its cage.

        All of this is said before the first byte of the image was read.
        """
        try:
            packet = self._handover.receive(_ROOM)
        except BlockingIOError:
            return
        except (
            OSError
        ) as error:  # it is not as we have made it, or we have no descriptors left: nobody could look after it
            self._overdue(f"killed: what it hands over cannot be taken: {error.strerror}")
            self._end_handover()
            return
        if packet.data == DEVICE and packet.fds:
            if self._restart is not None:
                self._restart.take(Fd(os.dup(packet.fds[0].fileno())))
            self.watch(packet.fds.pop())
        elif packet.data == IMAGE and packet.fds and self._restart is not None:
            self._restart.take(packet.fds.pop())
        elif packet.fds and self._supervision is None:
            self._supervision = packet.fds.pop()
            self._loop.watch(self._supervision.fileno(), self._judge)
        packet.close()
        if packet.data in (ENTERED, b""):
            self._enter()
        if packet.data in (IMAGE, b"") or (
            packet.data == DEVICE and self._restart is None
        ):  # nothing more is to be said
            self._end_handover()

    def watch(self, device: Fd) -> None:
        """End the server with the mount that is, or will be, behind *device*, which is ours now."""
        self._lifetime = Lifetime(self._loop, device, self._overdue, self._record)

    def _overdue(self, sentence: str) -> None:
        self.why = self.why or sentence
        self._log(ERROR, f"{self._label()}: {sentence}")
        self.kill()

    def _end_handover(self) -> None:
        if self._handover.fileno() >= 0:
            self._loop.forget(self._handover.fileno())
            self._handover.close()

    def _enter(self) -> None:
        if self._outside:
            self._outside = False
            self._entered()

    def _check(self, now: float) -> bool:
        if self._outside and now - self._born > LONGEST_ENTRY:
            self._overdue(f"killed: not in its cage after {LONGEST_ENTRY:.0f} s")
            return False
        return self._outside

    def _judge(self) -> None:
        """It tried a system call that its cage forbids, and waits for our answer: none but its end."""
        assert self._supervision is not None
        listener = self._supervision.fileno()
        violation = seccomp.receive(listener)
        # A signal of its own takes a call back: who does that before we have asked for its name ends without one.
        if violation is not None or not seccomp.is_over(listener):
            call = f"the system call {printable(violation.name)}" if violation and violation.name else "a system call"
            self._overdue(f"killed: tried {call}, which its cage forbids")
        self._end_supervision()

    def _end_supervision(self) -> None:
        if self._supervision is not None:
            self._loop.forget(self._supervision.fileno())
            self._supervision.close()
            self._supervision = None

    def end(self, why: str) -> None:
        """End it at once, for the reason *why*."""
        self.why = self.why or why
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def bury(self, how: str | None) -> None:
        """Note that it has ended and was reaped: *how* if not well."""
        self._voice.end()
        self.was_killed = not self.why and (how or "").startswith("signal")
        self.why = self.why or how or ""
        if how:
            self._log(WARNING, f"{self._label()}: server ended with {how}")
        self._enter()
        self._end_handover()
        self._end_supervision()
        if self._lifetime is not None:
            self._lifetime.end()
            self.device = self._lifetime.device
        self._states.remove(self.pid)


def how_it_ended(exit_code: int) -> str | None:
    """Return how a process ended, negative for a signal; None for well."""
    if exit_code:
        return f"exit status {exit_code}" if exit_code > 0 else f"signal {-exit_code}"
    return None
