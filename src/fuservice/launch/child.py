"""The forked child: from a copy of the activator to a caged server that holds its connection and nothing else.

Runs between fork and _exit: it never returns into the activator's code, whose objects still own descriptors that are closed
here.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import traceback

from fuservice.cage.plan import enter
from fuservice.errors import EXIT_BUG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, NoReturn

    from fuservice.cage.operations import Operation

SOCKET_FD: Final = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


def become_server(connection: int, log: int, cage: Sequence[Operation], serve: Callable[[], int]) -> NoReturn:
    """Enter *cage* with socket *connection* as fd 3 and *log* as fds 1 and 2, call *serve*, exit with what it returns."""
    code = EXIT_BUG
    try:
        _signals()
        _descriptors(connection, log)
        _environment()
        enter(cage)
        code = serve()
    except BaseException:  # noqa: BLE001  # there is nobody above us: log it, and leave by _exit whatever it was
        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


def _signals() -> None:
    """Undo what the activator arranged for itself."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _descriptors(connection: int, log: int) -> None:
    """Leave 0 (null), 1 and 2 (the log) and 3 (the socket) open, and nothing else."""
    wanted = (os.open(os.devnull, os.O_RDONLY), log, log, connection)
    # First out of the way of the numbers 0 to 3, to numbers that nobody has: any of them may be one that is wanted.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, SOCKET_FD + 1) for fd in wanted]
    for place, fd in enumerate(copies):
        os.dup2(fd, place)
    os.closerange(SOCKET_FD + 1, os.sysconf("SC_OPEN_MAX"))


def _environment() -> None:
    """Nothing of the activator's environment, but what says that we are a service (sd_listen_fds(3))."""
    os.environ.clear()
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="connection", LANG="C.UTF-8")
    sys.argv[1:] = []
