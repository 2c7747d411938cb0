"""Listening at a path: what activators do, and helpers never."""

from __future__ import annotations

import _socket
import errno
import os
from contextlib import suppress

from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Self

_BACKLOG: Final = 4_096  # the kernel's own bound is net.core.somaxconn


class Listener:
    """A listening AF_UNIX SOCK_SEQPACKET socket; owns the descriptor, and the name if it was bound here."""

    __slots__ = ("_bound", "_socket", "path")

    def __init__(self, path: str, mode: int, backlog: int = _BACKLOG) -> None:
        """Bind *path* with permission bits *mode*; OSError naming *path*."""
        self.path, self._bound = path, True
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(path)  # its mode is the umask's until the next line: listen() comes after that
            os.chmod(path, mode)  # noqa: PTH101
            self._socket.listen(backlog)
        except OSError as error:
            self._socket.close()
            number = error.errno or errno.ENAMETOOLONG  # Python says itself that a path is too long, without a number
            raise OSError(number, os.strerror(number), path) from None

    @classmethod
    def inherited(cls, fd: Fd) -> Self:
        """Take over *fd*, on which somebody else has begun to listen; OSError (and *fd* stays the caller's) if that is not so."""
        probe = _socket.socket(fileno=fd.fileno())
        try:
            kind = (probe.family, probe.type, probe.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
            if kind != (_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 1):
                raise OSError(errno.EPROTOTYPE, "not a listening AF_UNIX SOCK_SEQPACKET socket")
            path = probe.getsockname()
        finally:
            probe.detach()  # the descriptor is still the caller's
        found = cls.__new__(cls)
        os.set_inheritable(fd.fileno(), False)  # noqa: FBT003
        found.path, found._bound = os.fsdecode(path), False
        found._socket = _socket.socket(fileno=fd.take())
        return found

    def fileno(self) -> int:
        """Return the descriptor's number, which stays ours."""
        return self._socket.fileno()

    def do_not_block(self) -> None:
        """From now on accept() raises BlockingIOError where nobody waits."""
        self._socket.setblocking(False)  # noqa: FBT003

    def accept(self) -> FdSeqPacket:
        """Return the next connection; blocks."""
        number, _ = self._socket._accept()  # type: ignore[attr-defined]  # what socket.socket.accept calls
        return FdSeqPacket(Fd(number))

    def remove(self) -> None:
        """Remove the name, if it was bound here: whoever connects from now on finds nobody."""
        if self._bound:
            with suppress(FileNotFoundError):  # somebody tidied up before us
                os.unlink(self.path)  # noqa: PTH108

    def close(self) -> None:
        """Stop listening; the name stays."""
        self._socket.close()
