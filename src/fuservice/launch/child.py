"""From a copy of the warm process to a caged server that holds its connection and nothing else.

Runs between clone and _exit: it never returns into the warm process's code, whose objects still own descriptors that are
closed here.
"""

from __future__ import annotations

import fcntl
import os
import sys
import traceback
from contextlib import suppress

from fuservice.cage.plan import HANDOVER_FD, Profile, enter, plan
from fuservice.errors import EXIT_BUG, EXIT_OK
from fuservice.linux import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Final, NoReturn

    from fuservice.cage.operations import Operation

# What is said over the hand-over socket, besides the seccomp listener: that the cage is entered, the fuse device, the image.
ENTERED: Final = b"entered"
DEVICE: Final = b"device"
IMAGE: Final = b"image"  # if it is wanted, for a successor
SUPERVISOR: Final = "FUSERVICE_SUPERVISOR"  # in a server's environment: the number of that socket

SOCKET_FD: Final = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
DEBUG: Final = "FUSERVICE_DEBUG"  # in the environment: log whole tracebacks


class Starter:
    """Who makes servers: asked before the clone, since in a new user namespace everybody is nobody until ids are mapped."""

    __slots__ = ("gid", "uid")

    def __init__(self) -> None:
        self.uid, self.gid = os.geteuid(), os.getegid()


class Contained:
    """A driver as this room sees it: what its cage has beside that of every server, and what its server does there."""

    __slots__ = ("binds", "prepare", "serve", "syscalls", "threads", "warm")

    def __init__(
        self, serve: Callable[[str], int], *, prepare: Callable[[], None] = lambda: None,
        syscalls: Sequence[str] = (), binds: Sequence[str] = (), threads: int = 0, warm: bool = True,
    ) -> None:  # fmt: skip
        """*serve* gets the type, and returns the exit code. *prepare* is called in the same process, before it is contained.

        *warm*: the driver may be imported before the fork.
        """
        self.serve, self.prepare = serve, prepare
        self.syscalls, self.binds, self.threads, self.warm = syscalls, binds, threads, warm

    def cage(self, starter: Starter, without: Collection[str]) -> Sequence[Operation]:
        """Return the cage of a server that *starter* starts and looks after, *without* some walls."""
        uid, gid = (None, None) if starter.uid == 0 else (starter.uid, starter.gid)
        profile = Profile(uid=uid, gid=gid, user_namespace=uid is not None,
                          syscalls=self.syscalls, binds=self.binds, threads=self.threads, supervised=True)  # fmt: skip
        return plan(profile, without)


def become_server(
    name: str, fds: Sequence[int], load: Callable[[], Contained], starter: Starter, without: Collection[str], *,
    born: Callable[[], None] = lambda: None, trial: bool = False, restarts: bool = False,
) -> NoReturn:  # fmt: skip
    """Enter the cage of *starter*'s servers (*without* some walls) with connection, log and hand-over *fds*; serve; exit with the outcome.

    *born* is called first: from then on the connection is ours. A *trial* ends well as soon as the cage is entered.
    *restarts*: it is to show its image too.
    """
    code = EXIT_BUG
    try:
        born()
        prctl.set_name(name)
        leave_open(*fds)
        _environment(restarts=restarts)
        contained = load()
        _check_threads()
        contained.prepare()
        enter(contained.cage(starter, without))
        with suppress(BrokenPipeError):  # whoever looks after us ends, and we with him
            os.write(HANDOVER_FD, ENTERED)
        code = EXIT_OK if trial else contained.serve(name)
    except BaseException as error:  # noqa: BLE001  # there is nobody above us: log it, and leave by _exit whatever it was
        os.write(2, told(error).encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


def leave_open(connection: int, log: int, *handover: int) -> None:
    """Leave 0 (null), 1 and 2 (the log), 3 (the socket) and 4 (the hand-over, if any) open, and nothing else."""
    wanted = (os.open(os.devnull, os.O_RDONLY), log, log, connection, *handover)
    # First out of the way of the low numbers, to numbers that nobody has: any of them may be one that is wanted.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, len(wanted)) for fd in wanted]
    for place, fd in enumerate(copies):
        os.dup2(fd, place)
    os.closerange(len(wanted), os.sysconf("SC_OPEN_MAX"))


def _environment(*, restarts: bool) -> None:
    """Nothing of the listener's environment, but what says that we are a service (sd_listen_fds(3)), and who reads our log."""
    debug = {name: value for name, value in os.environ.items() if name == DEBUG}
    os.environ.clear()
    os.environ.update(debug, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="connection", LANG="C.UTF-8")
    os.environ.update({"FUSERVICE_STATUS": "1", SUPERVISOR: str(HANDOVER_FD)})
    if restarts:
        os.environ["FUSERVICE_RESTARTS"] = "1"
    sys.argv[1:] = []


def _check_threads() -> None:
    """A thread that a driver has started stays outside of walls that are built for the calling thread alone."""
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("the driver has started threads while it was imported: they cannot be contained")


def told(error: BaseException) -> str:
    """Return what to log of *error*: one line, and with --debug the whole traceback."""
    if DEBUG in os.environ:
        return "".join(traceback.format_exception(error))
    where = traceback.extract_tb(error.__traceback__)[-1:]
    notes = [
        *getattr(error, "__notes__", ()),
        *(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in where),
    ]
    return f"{type(error).__name__}: {error} ({', '.join(notes)})\n"
