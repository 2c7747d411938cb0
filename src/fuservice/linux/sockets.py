"""Unix SEQPACKET sockets: the only sendmsg and recvmsg of the project.

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
    from types import TracebackType
    from typing import Final, Self

SO_PASSRIGHTS: Final = 83  # asm-generic/socket.h, Linux 6.16
_INTS: Final = struct.Struct("i")
_TIMEVAL: Final = struct.Struct("ll")  # struct timeval: seconds, microseconds
_UCRED: Final = struct.Struct("iII")  # pid, uid, gid: struct ucred, unix(7)
_ROOM_FOR: Final = 4  # descriptors: more than any packet of ours has, so that a surplus is seen and not cut


class TruncatedPacketError(Exception):
    """The kernel dropped part of a packet, or a descriptor that came with it."""


class Credentials:
    """Who is at the other end, as the kernel knew it when the connection was made (SO_PEERCRED)."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid, self.uid, self.gid = pid, uid, gid


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

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends of a connection."""
        ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        first, second = (Fd(end.detach()) for end in ends)
        return cls(first), cls(second)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor's number, which stays ours."""
        return self._socket.fileno()

    def shut_down(self) -> None:
        """Tell the peer that nothing follows; harmless when it is gone."""
        try:
            self._socket.shutdown(_socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def refuse_descriptors(self) -> bool:
        """Make the peer's sending of descriptors fail (SO_PASSRIGHTS off); False where the kernel is older than 6.16."""
        try:
            self._socket.setsockopt(_socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            return False
        return True

    def peer(self) -> Credentials:
        """Return who connected."""
        raw = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
        return Credentials(*_UCRED.unpack(raw))

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

    def receive_with_fds(self, room: int) -> tuple[bytes, list[Fd]]:
        """Return one packet and the close-on-exec descriptors that came with it, all owned.

        TruncatedPacketError where more came than fits, with none of them left open.
        """
        self._arm()
        control = _socket.CMSG_SPACE(_ROOM_FOR * _INTS.size)
        data, ancillary, flags, _ = self._socket.recvmsg(room + 1, control, _socket.MSG_CMSG_CLOEXEC)
        # Own every descriptor before judging the packet, so that no early exit leaks one.
        fds: list[Fd] = []
        for level, kind, payload in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                fds += [Fd(n) for (n,) in _INTS.iter_unpack(payload[: len(payload) // _INTS.size * _INTS.size])]
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            for fd in fds:
                fd.close()
            raise TruncatedPacketError(f"a packet of over {room} bytes, or with over {_ROOM_FOR} descriptors")
        return data, fds
