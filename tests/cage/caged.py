"""A real server in a real cage, started by the test itself: the mount helper connects, the test clones."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fuservice.cage.plan import HANDOVER_FD, Profile, clone_flags, enter, plan
from fuservice.fuse import watch
from fuservice.linux import prctl
from fuservice.linux.clone import CLONE_PARENT, clone
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.linux.listener import Listener
from fuservice.linux.seccomp import Violation, receive
from fuservice.service import Driver, service_main
from tests.support.capabilities import PROGRAMS

if TYPE_CHECKING:
    from fuservice.cage.operations import Operation

NOBODY = 65_534
PLAIN = Profile(uid=NOBODY, gid=NOBODY, user_namespace=True)


class Caged:
    """A process in a cage, and what its starter holds: its log, and the listener of its filter if it is supervised."""

    def __init__(
        self, act: Callable[[], object], *, connection: int = -1, profile: Profile | None = None,
        without: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Clone; the child enters the cage and does *act*, with *connection* (or null) as descriptor 3."""
        self.profile = profile or Profile()
        operations = plan(self.profile, without)
        ours, theirs = FdSeqPacket.pair()
        reading, writing = os.pipe()  # no file: the server may write none
        os.set_blocking(reading, False)
        self._log, self._said = Fd(reading), b""
        with Fd(writing) as output, theirs:
            flags = clone_flags(operations)
            self.pid = _cloned_by_nobody(flags) if self.profile.user_namespace else clone(flags)
            if self.pid == 0:
                _be_server(connection, output.fileno(), theirs.fileno(), lambda: contain(operations), act)
        self.violations: list[Violation] = []
        self._supervisor = threading.Thread(target=self._supervise, args=(os.pidfd_open(self.pid),))
        self._listener: Fd | None = None
        with ours:
            if self.profile.supervised and "seccomp" not in without:
                _, fds = ours.receive_with_fds(100)
                self._listener = fds.pop() if fds else None
        self._supervisor.start()

    def _supervise(self, pidfd: int) -> None:
        """Do what a listener does: kill at the first violation, and remember it."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener.fileno(), select.POLLIN)
        while pidfd not in (happened := [fd for fd, _ in poll.poll()]):
            assert self._listener is not None
            if violation := receive(self._listener.fileno()):
                self.violations.append(violation)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            elif happened:
                poll.unregister(self._listener.fileno())  # nobody is under the filter any more
        os.close(pidfd)

    def ended(self) -> int:
        """Wait for the end; return the exit code, or the signal as a negative number."""
        self._supervisor.join(20)
        assert not self._supervisor.is_alive(), f"the server goes on: {self.said()}"
        if self._listener is not None:
            self._listener.close()
        self.said()
        self._log.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        self.ended()

    def said(self) -> str:
        """Return what it printed."""
        with suppress(BlockingIOError):
            while not self._log.closed and (more := os.read(self._log.fileno(), 65_536)):
                self._said += more
        return self._said.decode(errors="replace")


def contain(operations: Sequence[Operation]) -> None:
    """Enter the cage as a server does, whose timer runs by then."""
    watch.arm()
    enter(operations)


def become_nobody() -> None:
    """Be a plain user, as after a login."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl.set_dumpable(1)


def _cloned_by_nobody(flags: int) -> int:
    """Return the pid of a child of ours that a plain user has cloned, and 0 in it."""
    reading, writing = os.pipe()
    plain = os.fork()
    if plain == 0:
        become_nobody()
        pid = clone(flags | CLONE_PARENT)
        if pid == 0:
            return 0
        os.write(writing, str(pid).encode())
        os._exit(0)
    os.close(writing)
    with Fd(reading):
        os.waitpid(plain, 0)
        return int(os.read(reading, 16))


def _be_server(
    connection: int, log: int, handover: int, enter_cage: Callable[[], None], act: Callable[[], object]
) -> None:
    code = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        wanted = (null, log, log, connection if connection >= 0 else null, handover)
        for place, fd in enumerate([os.dup2(fd, 300 + n) for n, fd in enumerate(wanted)]):
            os.dup2(fd, place)
        assert len(wanted) - 1 == HANDOVER_FD
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        enter_cage()
        code = int(act() or 0)  # type: ignore[call-overload]  # None is 0
    except BaseException:  # noqa: BLE001  # it goes to the log, and we leave by _exit whatever it was
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def serve(
    driver: type[Driver],
    words: Sequence[str | Path],
    directory: Path,
    *,
    without: Collection[str] = (),
    profile: Profile | None = None,
) -> tuple[Caged, subprocess.CompletedProcess[str]]:
    """Mount with *driver* by ``fuservicemount WORDS``; return the server, and how the helper ended."""
    directory.mkdir(exist_ok=True)
    name = driver.name
    listener = Listener(f"{directory}/{name}", 0o600)
    command: list[str | Path] = [PROGRAMS / "fuservicemount", *words, "-t", name, f"--socket-dir={directory}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as helper:
        try:
            connection = listener.accept()
            listener.close()
            wanted = profile or Profile(
                syscalls=driver.syscalls, binds=driver.binds, threads=driver.threads, supervised=True
            )
            with connection:
                server = Caged(
                    lambda: service_main(driver, [name]), connection=connection.fileno(),
                    profile=wanted, without=without,
                )  # fmt: skip
            out, err = helper.communicate(timeout=30)
        finally:
            helper.kill()
    (directory / name).unlink()
    return server, subprocess.CompletedProcess(command, helper.returncode, out, err)
