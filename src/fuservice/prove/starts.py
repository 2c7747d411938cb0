"""How a caged process comes to be, for a probe as for a driver: one class for each way of starting, and a table of them."""

from __future__ import annotations

import fcntl
import os
import signal
import traceback

from fuservice.cage.plan import clone_flags, enter
from fuservice.errors import EXIT_BUG
from fuservice.linux.clone import clone
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.prove.probe import DIED, KILLED, SOCKET, probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import NoReturn, Self

    from fuservice.cage.operations import Operation


class Served:
    """A probe in its cage, and our end of its connection. Leaving the context ends it."""

    socket: FdSeqPacket
    pid: int  # as it is seen from here

    def ending(self) -> tuple[str, str]:
        """Return a word for how it ended without one of its own, and the detail. Blocks until it has ended."""
        raise NotImplementedError

    def end(self) -> None:
        """End it, if it has not, and leave nothing of it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.end()


class Start:
    """A way of starting."""

    def connect(self) -> Served:
        """Return a fresh probe, in a cage of its own."""
        raise NotImplementedError


class Cloned(Served):
    """A child of ours, without a supervisor: the kernel kills it for a system call that its cage forbids."""

    def __init__(self, cage: Sequence[Operation]) -> None:
        """Clone it, and wait until it is in *cage*, or has ended."""
        ours, theirs = FdSeqPacket.pair()
        reading, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
        with theirs, writing:
            self.pid = clone(clone_flags(cage))
            if self.pid == 0:
                _contained(theirs.fileno(), writing.fileno(), cage)
        self.socket, self._log = ours, reading
        self._said = os.read(reading.fileno(), 65_536)
        self._reaped = False

    def ending(self) -> tuple[str, str]:
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGSYS:
            return KILLED, "by seccomp"
        said = (self._said + os.read(self._log.fileno(), 65_536)).decode(errors="replace").strip()
        return DIED, f"exit status {code}: {said}"

    def end(self) -> None:
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.socket.close()
        self._log.close()


class Cloning(Start):
    """Clones from this process, into a cage that is given: it may lack walls, which is how the attempts are tried themselves."""

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
    except BaseException:  # noqa: BLE001  # there is nobody above us: say it, and leave by _exit whatever it was
        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)
