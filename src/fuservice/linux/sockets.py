"""Unix SEQPACKET sockets that take no descriptors; ``fdsockets`` has those that do. The only sendmsg and recvmsg of the project.

``_socket`` is the C half of ``socket``; importing the whole costs 7 ms more, on a path that has a budget.
``socket.recv_fds`` is not used anywhere: it ignores its flags, so nothing it returns is close-on-exec.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
import time

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Self

SO_PASSRIGHTS: Final = 83  # asm-generic/socket.h, Linux 6.16
_INTS: Final = struct.Struct("i")
_TIMEVAL: Final = struct.Struct("ll")  # struct timeval: seconds, microseconds


class SeqPacket:
    """A connected AF_UNIX SOCK_SEQPACKET socket that owns its descriptor.

    ``deadline`` (seconds of time.monotonic(), None: wait for ever) bounds every later call, which raises TimeoutError.
    """

    __slots__ = ("_socket", "deadline")

    def __init__(self, fd: Fd) -> None:
        """Take over *fd*; OSError (and *fd* stays the caller's) unless it is a connected socket of this kind."""
        probe = _socket.socket(fileno=fd.fileno())
        try:
            if (probe.family, probe.type) != (_socket.AF_UNIX, _socket.SOCK_SEQPACKET):
                raise OSError(errno.EPROTOTYPE, "not an AF_UNIX SOCK_SEQPACKET socket")
            probe.getpeername()
        finally:
            probe.detach()  # the descriptor is still the caller's
        self._socket = _socket.socket(fileno=fd.take())
        self.deadline: float | None = None

    @classmethod
    def connect(cls, path: str, timeout: float) -> Self:
        """Connect to *path* within *timeout* seconds. OSError as connect(2) has it, naming *path*."""
        # Not through a Fd: a fresh socket belongs to the object from the start.
        raw = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            # Not settimeout(): its non-blocking connect(2) fails with EAGAIN as soon as the listener's queue is full.
            raw.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6)))
            raw.connect(path)
            raw.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _TIMEVAL.pack(0, 0))
        except OSError as error:
            raw.close()
            number = errno.ETIMEDOUT if error.errno == errno.EAGAIN else error.errno or errno.ENAMETOOLONG
            raise OSError(number, os.strerror(number), path) from None
        return cls(Fd(raw.detach()))

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor's number, which stays ours."""
        return self._socket.fileno()

    def refuse_descriptors(self) -> None:
        """Make the peer's sending of descriptors fail (SO_PASSRIGHTS off); does nothing before Linux 6.16."""
        try:
            self._socket.setsockopt(_socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise

    def _arm(self) -> None:
        if self.deadline is None:
            self._socket.settimeout(None)
            return
        # 0 would mean "do not block"; a deadline that has passed must still let a waiting packet through.
        self._socket.settimeout(max(self.deadline - time.monotonic(), 0.000_001))

    def send(self, packet: bytes, fd: int | None = None) -> None:
        """Send one packet, with a copy of descriptor *fd* if one is given. BrokenPipeError when the peer is gone."""
        self._arm()
        ancillary = [] if fd is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _INTS.pack(fd))]
        self._socket.sendmsg([packet], ancillary, _socket.MSG_NOSIGNAL)

    def receive(self, room: int) -> bytes:
        """Return one packet of at most *room* bytes, b"" at the end of file; descriptors that come with it are dropped.

        There is no control buffer, so the kernel closes them before we could see them. A longer packet is returned with
        ``room + 1`` bytes, so that its length judges it.
        """
        self._arm()
        data, _, _, _ = self._socket.recvmsg(room + 1, 0, _socket.MSG_CMSG_CLOEXEC)
        return data
