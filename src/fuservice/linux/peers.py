"""Who is at the other end of a unix socket, beyond SO_PEERCRED: unix(7), and asm-generic/socket.h for the numbers."""

from __future__ import annotations

import _socket
import errno
import select
import struct

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SO_PEERGROUPS: Final = 59  # Linux 4.13
SO_PEERPIDFD: Final = 77  # Linux 6.5
_MOST: Final = 1_024  # bytes, which are 256 groups: all that Python takes
_GID: Final = struct.Struct("I")


def groups(connection: int) -> frozenset[int]:
    """Return the supplementary groups that whoever connected *connection* had then. OSError: ERANGE for over 256."""
    socket = _socket.socket(fileno=connection)
    try:
        raw = socket.getsockopt(_socket.SOL_SOCKET, SO_PEERGROUPS, _MOST)
    finally:
        socket.detach()  # the descriptor is still the caller's
    return frozenset(gid for (gid,) in _GID.iter_unpack(raw))


def process(connection: int) -> Fd | None:
    """Return a pidfd of the process that connected *connection*, which the caller owns; None where this kernel has none.

    ProcessLookupError where that process was reaped already. A pid says nothing: it may be another's by now.
    """
    socket = _socket.socket(fileno=connection)
    try:
        return Fd(socket.getsockopt(_socket.SOL_SOCKET, SO_PEERPIDFD))
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        if error.errno in (errno.EINVAL, errno.ENODATA, errno.ESRCH):  # EINVAL up to Linux 6.15
            raise ProcessLookupError(errno.ESRCH, "whoever connected has ended") from None
        raise
    finally:
        socket.detach()


def is_foreign(pid: int) -> bool:
    """Say whether process *pid* is in a user namespace whose ids are not ours: user_namespaces(7), /proc/PID/uid_map.

    Whoever has made one, and has a range of subordinate ids (subuid(5)), is thousands of users. No for a process of which
    /proc shows nothing: it may be hidden (hidepid). A number of a process is another's once that has ended: ask for that after this.
    """
    try:
        with open(f"/proc/{pid}/uid_map", "rb") as theirs, open("/proc/self/uid_map", "rb") as ours:  # noqa: PTH123
            return theirs.read().split() != ours.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return False


def has_ended(pidfd: Fd) -> bool:
    """Say whether the process has ended; it may wait to be reaped."""
    poll = select.poll()
    poll.register(pidfd.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def has_hung_up(connection: int) -> bool:
    """Say whether whoever connected has closed the other end."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
