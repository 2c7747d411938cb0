"""``fuserviced``: one socket, and one process for each caller who has something to say. One thread, one poll.

This process takes no packet of anybody's: it counts, forks, and ends what takes too long.
"""

from __future__ import annotations

import errno
import gc
import math
import os
import signal
import time
import traceback
from contextlib import suppress
from functools import partial

from fuservice.broker import walls, wire
from fuservice.broker.serve import INFORMATION, WARNING, gone, serve
from fuservice.cage.operations import LAST_DESCRIPTOR
from fuservice.cage.plan import enter
from fuservice.errors import EXIT_BUG, EXIT_OK
from fuservice.launch.loop import Loop
from fuservice.launch.slots import Refusals, Slots
from fuservice.linux import peers
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

    from fuservice.broker.policy import Policy
    from fuservice.linux.fdsockets import FdSeqPacket
    from fuservice.linux.listener import Listener

    Log = Callable[[int, str], None]

PER_UID: Final = 16  # connections of one user: one is served, the others wait
MOST: Final = 512  # connections in all
_AT_ONCE: Final = 64  # connections that are accepted in one turn
SILENCE: Final = 5.0  # seconds from a connection to its request
WAITING: Final = 60.0  # seconds from a request until those of the same user before it are done
PATIENCE: Final = 15.0  # seconds for a caller's process: longer than his conversation may take
ERROR: Final = 3  # syslog(3)
_NOBODY: Final = -1  # whose refusal it is when the kernel refuses
_CALLERS, _LISTENER = 0, 1  # in the order of a turn: those who are in come first


class _Caller:
    """A connection, from when it is accepted until the process that serves it has ended."""

    __slots__ = ("connection", "deadline", "pid", "pidfd", "uid")

    def __init__(self, connection: FdSeqPacket, uid: int) -> None:
        self.connection, self.uid = connection, uid
        self.deadline = time.monotonic() + SILENCE
        self.pid = 0
        self.pidfd: Fd | None = None


class Daemon:
    """Listens until SIGTERM or SIGINT, or until *stale* says that what it was started with holds no more."""

    def __init__(self, listener: Listener, policy: Policy, log: Log, stale: Callable[[], bool] = lambda: False) -> None:
        """Take over *listener*, and the signals that end us. What follows needs no right but that to mount."""
        self._listener, self._policy, self._log, self._stale = listener, policy, log, stale
        self._loop, self._slots = Loop(), Slots(PER_UID, MOST, (), "connections")
        self._refusals, self._judged = Refusals(), Refusals()  # those of connections, and of requests
        self._callers: set[_Caller] = set()
        self._ready: list[_Caller] = []  # they have said something, and wait for their turn
        self._served: dict[int, _Caller] = {}  # by uid: one at a time, so that what is counted is what is there
        self._cage = walls.caller()
        self._ending = False
        self._wake = [Fd(end) for end in os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _nothing)  # what it writes to the pipe is seen by poll, without a race

    def run(self) -> None:
        """Serve; returns when it was told to end and those who are served are done."""
        reading, writing = (end.fileno() for end in self._wake)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._loop.watch(reading, partial(self._told_to_end, reading), _LISTENER)
        self._listener.do_not_block()
        self._listen()
        gc.freeze()  # a fork then shares what was made until now
        try:
            while not self._ending or self._served:
                self._loop.turn()
        finally:
            signal.set_wakeup_fd(-1)
            self._listener.close()
            for end in self._wake:
                end.close()

    def _told_to_end(self, pipe: int) -> None:
        os.read(pipe, 64)
        self._end()

    def _end(self) -> None:
        """Take nobody any more. Those who are served are served to the end."""
        self._ending = True
        self._loop.forget(self._listener.fileno())
        self._ready.clear()
        for caller in [caller for caller in self._callers if not caller.pid]:
            self._drop(caller)

    def _listen(self, _now: float = 0.0) -> bool:
        if not self._ending:
            self._loop.watch(self._listener.fileno(), self._accept, _LISTENER)
        return False

    def _accept(self) -> None:
        if self._stale():
            self._log(INFORMATION, "the policy has changed: ends, to be started with the new one")
            self._end()
            return
        for _ in range(_AT_ONCE):
            try:
                connection = self._listener.accept()
            except BlockingIOError:
                return
            except (
                OSError
            ) as error:  # the peer is gone already, or we are out of descriptors: the next one may fare better
                self._loop.forget(self._listener.fileno())  # until the next tick: poll would say so again and again
                self._loop.tick(self._listen)
                self._tell(_NOBODY, f"cannot accept: {error.strerror}")
                return
            try:
                self._take(connection)
            except Exception as error:  # noqa: BLE001  # whatever it is, others are served
                self._unforeseen(error)
                connection.close()

    def _unforeseen(self, error: Exception) -> None:
        self._log(ERROR, "".join(traceback.format_exception(error)).replace("\n", " | "))

    def _safely(self, step: Callable[[_Caller], None], caller: _Caller) -> None:
        """Take *step* with *caller*; an exception that nobody foresaw is his end, and nobody else's."""
        try:
            step(caller)
        except Exception as error:  # noqa: BLE001
            self._unforeseen(error)
            if caller in self._callers:
                self._drop(caller)

    def _take(self, connection: FdSeqPacket) -> None:
        uid = connection.peer().uid
        if stranger := _stranger(connection):
            connection.deadline = time.monotonic()  # there is room for one packet, or nobody to take it
            with suppress(OSError):
                connection.send(stranger.encode())
            connection.close()
            return
        if refusal := self._slots.take(uid):
            connection.close()
            self._tell(uid, refusal)
            return
        caller = _Caller(connection, uid)
        self._callers.add(caller)
        self._loop.watch(connection.fileno(), partial(self._safely, self._speaks, caller), _CALLERS)
        self._loop.tick(self._look_at_the_clock)

    def _tell(self, uid: int, sentence: str) -> None:
        if told := self._refusals.tell(uid, sentence, time.monotonic()):
            self._log(WARNING, told)

    # ---- callers ----

    def _speaks(self, caller: _Caller) -> None:
        """He has sent something, or hung up: for the latter no process is made."""
        self._loop.forget(caller.connection.fileno())
        if peers.has_hung_up(caller.connection.fileno()):
            self._drop(caller)
            return
        caller.deadline = time.monotonic() + WAITING
        self._ready.append(caller)
        self._serve_next()

    def _serve_next(self) -> None:
        for caller in [*self._ready]:
            if caller.uid not in self._served and len(self._served) < walls.PROCESSES:
                self._ready.remove(caller)
                self._serve(caller)

    def _serve(self, caller: _Caller) -> None:
        # Whoever is refused again and again shall not fill the log; what was mounted is told in any case.
        loud = self._judged.tell(caller.uid, "", time.monotonic()) is not None
        try:
            caller.pid = os.fork()
        except OSError as error:
            self._tell(_NOBODY, f"cannot make a process for a caller: {error.strerror}")
            self._drop(caller)
            return
        if caller.pid == 0:
            self._become_server(caller.connection, loud=loud)
        caller.pidfd = Fd(os.pidfd_open(caller.pid))
        caller.connection.close()  # it is the process's now: the peer sees its end when that ends
        caller.deadline = time.monotonic() + PATIENCE
        self._served[caller.uid] = caller
        self._loop.watch(caller.pidfd.fileno(), partial(self._safely, self._has_ended, caller), _CALLERS)

    def _become_server(self, connection: FdSeqPacket, *, loud: bool) -> NoReturn:
        """In a process of the caller's own: serve him, and end."""
        code = EXIT_BUG
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # it has little to do, and a mount must not be half done
            os.closerange(3, connection.fileno())  # the listener, and whoever else is connected
            os.closerange(connection.fileno() + 1, LAST_DESCRIPTOR)
            enter(self._cage)
            serve(connection, self._policy, self._log, loud=loud)
            code = EXIT_OK
        except BaseException as error:  # noqa: BLE001  # there is nobody above us: log it, and leave by _exit whatever it was
            self._log(ERROR, "".join(traceback.format_exception(error)).replace("\n", " | "))
        finally:
            os._exit(code)

    def _has_ended(self, caller: _Caller) -> None:
        assert caller.pidfd is not None
        self._loop.forget(caller.pidfd.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(caller.pid, 0)[1])
        if code:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._log(ERROR, f"uid {caller.uid}: the process that served a request of theirs ended by {how}")
        caller.pidfd.close()
        del self._served[caller.uid]
        self._drop(caller)
        self._serve_next()

    def _drop(self, caller: _Caller) -> None:
        if caller.connection.fileno() >= 0:
            self._loop.forget(caller.connection.fileno())
            caller.connection.close()
        if caller in self._ready:
            self._ready.remove(caller)
        self._callers.remove(caller)
        self._slots.give_back(caller.uid)

    def _look_at_the_clock(self, now: float) -> bool:
        for caller in [caller for caller in self._callers if now >= caller.deadline]:
            if caller.pidfd is None:
                self._tell(
                    caller.uid, f"uid {caller.uid}: said nothing in time, or waited too long for others of theirs"
                )
                self._drop(caller)
            else:
                self._log(WARNING, f"uid {caller.uid}: a request of theirs takes over {PATIENCE:.0f} s: ends it")
                signal.pidfd_send_signal(caller.pidfd.fileno(), signal.SIGKILL)
                caller.deadline = math.inf  # where the kernel waits for the caller's own server, it ends with that
        return bool(self._callers)


def _stranger(connection: FdSeqPacket) -> wire.Answer | None:
    """Return what to tell a caller who is none of the users that we count; None for one who is."""
    pid = connection.peer().pid
    try:
        process = peers.process(connection.fileno())
    except ProcessLookupError:
        return wire.Answer(errno.ESRCH, sentence=str(gone()))
    foreign = pid == 0 or peers.is_foreign(pid)
    if process is not None:
        with process:
            if peers.has_ended(process):  # so it was perhaps another's ids that we saw
                return wire.Answer(errno.ESRCH, sentence=str(gone()))
    return wire.Answer(errno.EPERM, sentence="you are in another user namespace than the broker") if foreign else None


def _nothing(_number: int, _frame: object) -> None:
    """Be there, so that the signal does not end us."""
