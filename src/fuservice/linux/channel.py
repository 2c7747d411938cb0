"""Packets between processes of our own, with descriptors, and with the sender's pid as the kernel knows it (unix(7))."""

from __future__ import annotations

import _socket
import errno
import select
import struct

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Self

_INTS: Final = struct.Struct("i")
_UCRED: Final = struct.Struct("iII")  # pid, uid, gid: struct ucred, unix(7)
_ROOM_FOR: Final = 4  # descriptors


class Packet:
    """What came: *data*, b"" at the end of file; descriptors, which are owned; and who sent it, in our pid namespace."""

    __slots__ = ("data", "fds", "pid")

    def __init__(self, data: bytes, fds: list[Fd], pid: int) -> None:
        self.data, self.fds, self.pid = data, fds, pid

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        for fd in self.fds:
            fd.close()


class Channel:
    """One end of a SEQPACKET socket pair; owns its descriptor. No call blocks: BlockingIOError instead."""

    __slots__ = ("_socket",)

    def __init__(self, fd: Fd) -> None:
        """Take over *fd*; OSError (and *fd* stays the caller's) where it is no socket."""
        _socket.socket(fileno=fd.fileno()).detach()
        self._socket = _socket.socket(fileno=fd.take())
        self._socket.setblocking(False)  # noqa: FBT003
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)

    @classmethod
    def pair(cls) -> tuple[Self, Fd]:
        """Return our end, and the end for another process."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        return cls(Fd(ours.detach())), Fd(theirs.detach())

    def fileno(self) -> int:
        """Return the descriptor's number, which stays ours."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._socket.close()

    def wait(self, events: int = select.POLLIN) -> None:
        """Block until a packet, or the end of file, can be received; or sent, with POLLOUT."""
        poll = select.poll()
        poll.register(self.fileno(), events)
        poll.poll()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send one packet, with copies of *fds*. BrokenPipeError when nobody holds the other end."""
        rights = b"".join(map(_INTS.pack, fds))
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
        self._socket.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL)

    def send_patiently(self, data: bytes) -> None:
        """Send one packet; block while there is no room for it."""
        while True:
            try:
                return self.send(data)
            except BlockingIOError:
                self.wait(select.POLLOUT)

    def receive(self, room: int) -> Packet:
        """Return one packet of at most *room* bytes; EMSGSIZE where it or its descriptors are more than fits."""
        control = _socket.CMSG_SPACE(_ROOM_FOR * _INTS.size) + _socket.CMSG_SPACE(_UCRED.size)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(room, control, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # the other end was closed with packets of ours unread
            return Packet(b"", [], 0)
        packet = Packet(data, [], 0)
        for level, kind, payload in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                packet.fds += [Fd(n) for (n,) in _INTS.iter_unpack(payload[: len(payload) // _INTS.size * _INTS.size])]
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS):
                packet.pid = _UCRED.unpack(payload)[0]
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            packet.close()
            raise OSError(errno.EMSGSIZE, "a packet that was cut")
        return packet
