"""``fuservice listen``: one socket for each type, one caged server process for each connection.

One thread, one poll. This process imports no driver and reads nothing of what connects: it counts, hands connections to the
warm processes, and looks after the servers, which are its children.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from fuservice.errors import SystemCallError
from fuservice.launch.birth import Birth
from fuservice.launch.dead import detach_dead
from fuservice.launch.keeper import CHANNELS, ERROR, WARNING, Keeper
from fuservice.launch.loop import Loop
from fuservice.launch.places import check_name, clear_stale, make_room, prepare_directory
from fuservice.launch.server import Server, how_it_ended
from fuservice.launch.slots import PER_UID, Refusals, Slots
from fuservice.launch.tidier import Tidier
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.linux.listener import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from fuservice.launch.groups import Groups
    from fuservice.launch.state import States
    from fuservice.launch.tidier import Tidy
    from fuservice.linux.notify import Manager

_AT_ONCE: Final = 64  # connections that are accepted in one turn
_NOBODY: Final = -1  # whose refusal it is when the kernel refuses
_LISTENERS: Final = 1  # in the order of a turn: what concerns those who are served comes first


class Activator:
    """Listens until it is told to end by SIGTERM or SIGINT; SIGHUP loads the drivers anew."""

    def __init__(
        self, programs: Mapping[str, Sequence[str]], directory: str, *, log: Callable[[int, str], None], states: States, manager: Manager, facts: Mapping[str, str], mode: int = 0o220, per_uid: int = PER_UID,
        inherited: Mapping[str, Listener] | None = None, groups: Groups | None = None, tidy: Tidy | None = None,
    ) -> None:  # fmt: skip
        """*programs*: type → the warm process for it; types with equal ones share one process. Nothing is bound before run().

        *facts* are recorded of each server; *inherited* are the sockets, by type, that we need not bind: they are ours now.
        *groups* gives each server a control group, where one was delegated to us. *tidy* is called, in
        a process of its own, after a server that has left a mount; without it, that is detached with our own rights.
        """
        for name in programs:
            check_name(name)
        self._directory, self._mode, self._per_uid = directory, mode, per_uid
        self._log, self._states, self._manager, self._facts = log, states, manager, facts
        self._listeners = dict(inherited or {})
        self._loop, self._groups = Loop(), groups
        self._tidier = Tidier(self._loop, log, tidy or _detach)
        self._servers: dict[int, Server] = {}
        self._refusals = Refusals()
        commands = {name: tuple(command) for name, command in programs.items()}
        keepers = {
            command: Keeper(
                [name for name in programs if commands[name] == command], command, self._loop,
                log=log, born=self._born, refused=self._refused, settled=self._settled,
            )
            for command in dict.fromkeys(commands.values())
        }  # fmt: skip
        self._keepers = {name: keepers[command] for name, command in commands.items()}
        self._ending = 0
        self._hung_up = self._reloading = False
        self._failed = ""  # the type whose trial did not end well

    def run(self, ready: Callable[[list[str]], None]) -> None:
        """Listen; *ready* gets the socket paths once all are bound, and every driver has a cage that can be built.

        Returns after SIGTERM or SIGINT, when no server is left. A second signal ends the servers too.
        """
        self._slots = Slots(self._per_uid, make_room(), {0, os.geteuid()})
        wake = self._catch_signals()
        try:
            self._tidier.add(
                {device: why or "its listener was killed" for device, why in self._states.left.items()}
            )  # by listeners that were killed, and their servers with them
            self._try_cages()
            self._bind()
            if not self._ending:
                ready([listener.path for listener in self._listeners.values()])
                self._manager.ready(self._status())
            while self._ending == 0 or (self._ending == 1 and self._busy()):
                self._loop.turn()
                self._obey()
        finally:
            self._unbind()
            self._end_all()
            signal.set_wakeup_fd(-1)
            self._loop.forget(wake.fileno())
            wake.close()
            self._wake_writer.close()

    def _busy(self) -> bool:
        return bool(self._servers) or any(len(keeper) for keeper in self._keepers.values())

    # ---- signals ----

    def _catch_signals(self) -> Fd:
        """Turn signals into bytes that poll sees: handlers alone would race with it."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake_writer = Fd(writing)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._signalled)
        # After the channels, on which a server says that it was born: or we would bury somebody unknown.
        self._loop.watch(reading, lambda: self._woken(reading), CHANNELS + 1)
        return Fd(reading)

    def _signalled(self, number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._ending += 1
        elif number == signal.SIGHUP:
            self._hung_up = True

    def _woken(self, reading: int) -> None:
        os.read(reading, 512)
        while self._bury():
            pass

    def _obey(self) -> None:
        """Do what signals said."""
        if self._ending and self._listeners:
            self._unbind()
            self._manager.stopping(f"waiting for {len(self._servers)} servers")
        if self._hung_up and not self._ending:
            self._hung_up, self._reloading = False, True
            self._manager.reloading()
            for keeper in dict.fromkeys(self._keepers.values()):
                keeper.reload()

    def _settled(self) -> None:
        if self._reloading and not any(keeper.loading for keeper in self._keepers.values()):
            self._reloading = False
            self._manager.ready(self._status())

    def _status(self) -> str:
        return f"serving {', '.join(self._keepers)}"

    # ---- sockets ----

    def _try_cages(self) -> None:
        """Have each warm process make a server for nobody. SystemCallError where that fails: better now than at a mount."""
        for keeper in dict.fromkeys(self._keepers.values()):
            ours, theirs = FdSeqPacket.pair()
            ours.close()
            keeper.add(Birth(keeper.names[0], os.geteuid(), theirs, trial=True))
        while self._busy() and not self._ending:
            self._loop.turn()
        if self._failed:
            raise SystemCallError(f"{self._failed}: no server can be started, for the reason above")

    def _bind(self) -> None:
        missing = [name for name in self._keepers if name not in self._listeners]
        if missing:
            prepare_directory(self._directory)
        for name in missing:
            path = f"{self._directory}/{name}"
            clear_stale(path)
            try:
                self._listeners[name] = Listener(path, self._mode)
            except OSError as error:
                raise SystemCallError(f"{path}: cannot listen there: {error.strerror}") from None
        for name, listener in self._listeners.items():
            listener.do_not_block()
            self._listen_to(name, listener)

    def _listen_to(self, name: str, listener: Listener, _now: float = 0.0) -> bool:
        if listener.fileno() >= 0:  # not closed meanwhile
            self._loop.watch(listener.fileno(), partial(self._accept, name, listener), _LISTENERS)
        return False

    def _unbind(self) -> None:
        for listener in self._listeners.values():
            self._loop.forget(listener.fileno())
            listener.remove()
            listener.close()
        self._listeners.clear()

    def _accept(self, name: str, listener: Listener) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection = listener.accept()
            except BlockingIOError:
                return
            except (
                OSError
            ) as error:  # the peer is gone already, or we are out of descriptors: the next one may fare better
                self._loop.forget(listener.fileno())  # until the next tick: poll would say so again and again
                self._loop.tick(partial(self._listen_to, name, listener))
                if told := self._refusals.tell(_NOBODY, f"cannot accept: {error.strerror}", time.monotonic()):
                    self._log(WARNING, f"{name}: {told}")
                return
            caller = connection.peer().uid
            refusal = self._slots.take(caller)
            if refusal is None:
                self._keepers[name].add(Birth(name, caller, connection))
            else:
                connection.close()
                if told := self._refusals.tell(caller, refusal, time.monotonic()):
                    self._log(WARNING, f"{name}: {told}")

    # ---- servers ----

    def _refused(self, birth: Birth, sentence: str) -> None:
        """There will be no server for *birth*."""
        self._log(ERROR, f"{birth.name}: {sentence}")
        if birth.trial:
            self._failed = birth.name
        self._give_back(birth)
        birth.give_up()

    def _born(self, birth: Birth, pid: int) -> None:
        keeper = self._keepers[birth.name]
        server = self._servers[pid] = Server(
            birth, pid, self._loop, self._states, self._facts, log=self._log, entered=keeper.has_entered
        )
        if self._groups is not None:
            try:
                self._groups.add(pid)
            except OSError as error:  # its budgets are walls too
                self._log(ERROR, f"{birth.name}[{pid}]: killed: {error.filename}: {error.strerror}")
                server.kill()

    def _bury(self) -> bool:
        """Reap one child, if one has ended; say whether there was one."""
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if ended is None:
            return False
        if ended.si_pid not in self._servers:
            for keeper in self._keepers.values():  # its first word may be there to be read: it came before its end
                keeper.hear()
        how = how_it_ended(os.waitstatus_to_exitcode(os.waitpid(ended.si_pid, 0)[1]))
        if self._groups is not None:
            self._groups.remove(ended.si_pid)
        server = self._servers.pop(ended.si_pid, None)
        if server is not None:
            server.bury(how)
            if server.device:
                self._tidier.add({server.device: server.why})
            if server.trial and how:
                self._failed = server.name
            self._give_back(server)
        elif not self._tidier.bury(ended.si_pid):
            any(keeper.bury(ended.si_pid, how or "nobody to serve") for keeper in self._keepers.values())
        return True

    def _give_back(self, ended: Server | Birth) -> None:
        if not ended.trial:  # nobody's
            self._slots.give_back(ended.caller)

    def _end_all(self) -> None:
        """Nothing is left of us: neither servers nor warm processes, nor what was recorded."""
        for keeper in dict.fromkeys(self._keepers.values()):
            keeper.end()
        for server in self._servers.values():
            self._log(WARNING, f"{server.name}[{server.pid}]: killed: the listener ends")
            server.end("its listener was told to end")
        while self._servers:
            os.waitid(os.P_PID, next(iter(self._servers)), os.WEXITED | os.WNOWAIT)
            while self._bury():
                pass
        self._tidier.finish()


def _detach(device: str, _why: str, say: Callable[[str], None]) -> None:
    for place in detach_dead(device, say):
        say(f"{place}: detached: nobody serves it any more")
