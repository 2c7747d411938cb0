"""Who tidies up after a direct start: the parent of the supervisor, who waits, and does nothing until all is over.

Server and supervisor may end in any way and order, SIGKILL among them: the server's death ends its supervisor, the
supervisor's death kills the server, and the guard is told of both by the kernel. Then the mount is detached if it is there
still, and whoever started us does what else there is to do. For that he stays in the mount namespace in which the mount
was made; if that is a private one, which everybody else has left, he ends the server, and the namespace goes with him.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

from fuservice.errors import EXIT_BUG, EXIT_OK
from fuservice.launch import company
from fuservice.launch.child import SOCKET_FD, leave_open
from fuservice.linux import prctl, subreaper
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, NoReturn

NAME: Final = "fuservice-guard"  # what ps(1) calls a guard
_WORDS_FD: Final = SOCKET_FD  # from the helper, when it leaves
_REPORT_FD: Final = SOCKET_FD + 1  # from the supervisor, when he ends
_ROOM: Final = 65_536
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended:
    """A direct start that is over: the server, and whoever looked after it, have ended."""

    __slots__ = ("device", "facts", "why")

    def __init__(self, device: str, facts: Mapping[str, str], why: str) -> None:
        """*device*: that of the mount, as mountinfo shows it, "" if it is not known. *facts* are the helper's last words,
        {} if it had none: it failed, or was killed. *why* the server ended, "" for well: its mount had gone."""
        self.device, self.facts, self.why = device, facts, why


def guard(
    supervise: Callable[[int], NoReturn], names: tuple[str, ...], *,
    words: int, log: int, over: Callable[[Ended], None], failed: Callable[[BaseException], None],
) -> NoReturn:  # fmt: skip
    """Fork a supervisor, who *supervise*s with the descriptor for his report; wait; call *over*; end.

    *names*: what ps(1) calls those who, as we do, stay in a mount namespace for others' sake. *words*: a descriptor to read
    the helper's last words from; *log*: one to write to. *failed* is told of an exception of ours.
    """
    code = EXIT_BUG
    try:
        os.setsid()
        os.chdir("/")
        subreaper.adopt_orphans()
        report, reporting = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            supervise(reporting)
        leave_open(words, log, report)
        prctl.set_name(NAME)
        _wait(child, (NAME, *names))
        ended = _end(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if ended is not None:
            over(ended)
        code = EXIT_OK
    except BaseException as error:  # noqa: BLE001  # there is nobody above us: leave by _exit whatever it was
        failed(error)
    finally:
        os._exit(code)


def _wait(child: int, names: tuple[str, ...]) -> None:
    """Wait for the end of *child*, who is not reaped; end him if nobody is left to whom the mount is of use."""

    def end(*_: object) -> None:
        os.kill(child, signal.SIGTERM)
        os.kill(child, signal.SIGCONT)  # he may have been stopped

    for number in _SIGNALS:
        signal.signal(number, end)
    with Fd(os.pidfd_open(child)) as pidfd:
        if not company.is_kept():
            _wait_with_others(pidfd, names, end)
        _wait_for(pidfd)
    for number in _SIGNALS:  # the pid is his only until he is reaped
        signal.signal(number, signal.SIG_IGN)


def _wait_with_others(pidfd: Fd, names: tuple[str, ...], alone: Callable[[], None]) -> None:
    """Wait for the process *pidfd*, for as long as others live in our mount namespace; then call *alone*."""
    while other := company.witness(names):
        with other:
            if pidfd.fileno() in _wait_for(pidfd, other):
                return
    alone()


def _wait_for(*processes: Fd) -> set[int]:
    """Wait until one of the *processes* (pidfds) has ended; return the descriptors of those that have."""
    poll = select.poll()
    for process in processes:
        poll.register(process.fileno(), select.POLLIN)
    return {fd for fd, _ in poll.poll()}


def _end(code: int) -> Ended | None:
    """Wait for a server that was orphaned, and for the helper's last words; return how it all ended, None if nothing was mounted."""
    with suppress(ChildProcessError):
        while True:
            os.wait()
    device, _, why = _read(_REPORT_FD).partition("\0")
    if code < 0:
        why = why or f"its supervisor ended with signal {-code}"
    facts = dict(word.partition("=")[::2] for word in _read(_WORDS_FD).split("\0") if word)
    device = device or facts.get("device", "")
    return Ended(device, facts, why) if device or facts else None


def _read(fd: int) -> str:
    """Return what comes from *fd* until whoever wrote has closed it."""
    text = b""
    while more := os.read(fd, _ROOM):
        text += more
    return os.fsdecode(text)
