"""A probe in a cage that may lack walls: which is how the attempts are tried themselves."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from fuservice.cage.plan import clone_flags, enter
from fuservice.errors import EXIT_BUG, SystemCallError
from fuservice.launch.child import told
from fuservice.linux.clone import clone
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.prove.probe import DIED, KILLED, READY, SOCKET, probe
from fuservice.prove.starts import Served, Start

if TYPE_CHECKING:
    from fuservice.cage.operations import Operation


class Cloned(Served):
    """A child of ours, without a supervisor: the kernel kills it for a system call that its cage forbids."""

    def __init__(self, cage: Sequence[Operation]) -> None:
        """Clone it, and wait until it is in *cage*; SystemCallError with its last words where it does not get there."""
        ours, theirs = FdSeqPacket.pair()
        reading, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
        with theirs, writing:
            self.pid = clone(clone_flags(cage))
            if self.pid == 0:
                _contained(theirs.fileno(), writing.fileno(), cage)
        self.socket, self._log = ours, reading
        self._reaped = False
        said = os.read(reading.fileno(), 65_536)
        if said != READY + b"\n":
            self.close()
            raise SystemCallError(f"no server was started: {said.decode(errors='replace').strip()}")

    def ending(self) -> tuple[str, str]:
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGSYS:
            return KILLED, "by seccomp"
        said = os.read(self._log.fileno(), 65_536).decode(errors="replace").strip()
        return DIED, f"exit status {code}: {said}"

    def close(self) -> None:
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.socket.close()
        self._log.close()


class Cloning(Start):
    """Clones from this process, into a cage that is given: it may lack walls, which is how the attempts are tried themselves."""

    supervised = False

    def __init__(self, cage: Sequence[Operation]) -> None:
        self._cage = cage

    def connect(self) -> Cloned:
        return Cloned(self._cage)


def _contained(connection: int, log: int, cage: Sequence[Operation]) -> NoReturn:
    """Be the probe in *cage*, with descriptors as a server has them, and end."""
    code = EXIT_BUG
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, SOCKET + 1) for fd in (null, log, log, connection)]
        for place, fd in enumerate(copies):
            os.dup2(fd, place)
        enter(cage)
        code = probe()
    except BaseException as error:  # noqa: BLE001  # there is nobody above us: say it, and leave by _exit whatever it was
        os.write(2, told(error).encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)
