"""Unix SEQPACKET sockets that take descriptors, and know who is at the other end. The mount helper has no such socket."""

from __future__ import annotations

import _socket
import errno
import struct

from fuservice.linux.fds import Closed, Fd
from fuservice.linux.sockets import SeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Self

_INTS: Final = struct.Struct("i")
_UCRED: Final = struct.Struct("iII")  # pid, uid, gid: struct ucred, unix(7)
_ROOM_FOR: Final = 4  # descriptors: more than any packet of ours has, so that a surplus is seen and not cut


class TruncatedPacketError(Exception):
    """The kernel dropped part of a packet, or a descriptor that came with it."""


class Credentials:
    """Who is at the other end, as the kernel knew it when the connection was made (SO_PEERCRED)."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid, self.uid, self.gid = pid, uid, gid


class FdSeqPacket(SeqPacket, Closed):
    """A connected socket whose packets may bring descriptors."""

    __slots__ = ()

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends of a connection."""
        ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        first, second = (Fd(end.detach()) for end in ends)
        return cls(first), cls(second)

    def shut_down(self) -> None:
        """Tell the peer that nothing follows; harmless when it is gone."""
        try:
            self._socket.shutdown(_socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def peer(self) -> Credentials:
        """Return who connected."""
        raw = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
        return Credentials(*_UCRED.unpack(raw))

    def send_with_fds(self, packet: bytes, fds: Sequence[int]) -> None:
        """Send one packet with copies of all *fds*. BrokenPipeError when the peer is gone."""
        self._arm()
        rights = b"".join(map(_INTS.pack, fds))
        self._socket.sendmsg([packet], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL)

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
