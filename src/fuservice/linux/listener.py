"""Listening at a path: what activators do, and helpers never."""

from __future__ import annotations

import _socket
import errno
import os

from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket


class Listener:
    """A listening AF_UNIX SOCK_SEQPACKET socket at a path; owns both the descriptor and the name."""

    __slots__ = ("_socket", "path")

    def __init__(self, path: str, mode: int, backlog: int = 128) -> None:
        """Bind *path* with permission bits *mode*; OSError naming *path*."""
        self.path = path
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(path)  # its mode is the umask's until the next line: listen() comes after that
            os.chmod(path, mode)  # noqa: PTH101
            self._socket.listen(backlog)
        except OSError as error:
            self._socket.close()
            number = error.errno or errno.ENAMETOOLONG  # Python says itself that a path is too long, without a number
            raise OSError(number, os.strerror(number), path) from None

    def fileno(self) -> int:
        """Return the descriptor's number, which stays ours."""
        return self._socket.fileno()

    def accept(self) -> FdSeqPacket:
        """Return the next connection; blocks."""
        number, _ = self._socket._accept()  # type: ignore[attr-defined]  # what socket.socket.accept calls
        return FdSeqPacket(Fd(number))

    def close(self) -> None:
        """Stop listening; the name stays, so that a forked child may call this."""
        self._socket.close()
