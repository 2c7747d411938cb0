"""The wire as the tests know it, byte by byte: what is under test may not also hold the ruler.

Nothing here imports ``fuservice``. A packet is built by the function named after its magic; nothing stops a test from
building what no honest peer would send.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

PATIENCE = 10.0
ROOM = 1 << 18  # bytes: more than the largest packet that may be sent
MANY = 16  # descriptors

DIR, REG = 0o040000, 0o100000


def saft(oldest: int = 1, newest: int = 1, flags: int = 3) -> bytes:
    """Return the helper's hello."""
    return struct.pack(">4sHHI", b"SAFT", oldest, newest, flags)


def last(version: int = 1, padding: int = 0) -> bytes:
    """Return the service's answer to hello."""
    return struct.pack(">4sHH", b"LAST", version, padding)


def file(error: int, path: bytes | str) -> bytes:
    """Return the packet that carries a file, or the errno why it does not."""
    return struct.pack(">4sI", b"FILE", error) + os.fsencode(path) + b"\0"


def repl(error: int = 0) -> bytes:
    """Return a plain answer."""
    return struct.pack(">4sI", b"REPL", error)


def open_(path: bytes | str, flags: int = os.O_RDONLY, *, mode: int = 0, request: int = 0, block: int = 0) -> bytes:
    """Return an OPEN command."""
    return struct.pack(">4sIIII", b"OPEN", flags, mode, request, block) + os.fsencode(path) + b"\0"


def bdev(path: bytes | str, flags: int = os.O_RDONLY, *, request: int = 0, block: int = 0) -> bytes:
    """Return a BDEV command."""
    return b"BDEV" + open_(path, flags, request=request, block=block)[4:]


def type_(flags: int = 0) -> bytes:
    """Return a TYPE command."""
    return struct.pack(">4sI", b"TYPE", flags)


def name(source: bytes | str = "source") -> bytes:
    """Return a NAME command."""
    return b"NAME" + os.fsencode(source) + b"\0"


def mntp(path: bytes | str | os.PathLike[str], kind: int = DIR, padding: int = 0) -> bytes:
    """Return a MNTP command."""
    return struct.pack(">4sHH", b"MNTP", kind, padding) + os.fsencode(path) + b"\0"


def opts(text: bytes | str) -> bytes:
    """Return an OPTS command."""
    return b"OPTS" + os.fsencode(text) + b"\0"


def mtab(text: bytes | str) -> bytes:
    """Return an MTAB command."""
    return b"MTAB" + os.fsencode(text) + b"\0"


def doit(flags: int = 6) -> bytes:
    """Return a DOIT command; 6 is nosuid and nodev."""
    return struct.pack(">4sI", b"DOIT", flags)


def byee(code: int = 0) -> bytes:
    """Return a BYEE command."""
    return struct.pack(">4sI", b"BYEE", code)


def argv_file(words: Sequence[str], *, gap: int = 16) -> bytes:
    """Return an argv file as libfuse's helper writes it: *gap* zero bytes stand for the one ``-t TYPE`` pair."""
    strings = [os.fsencode(word) + b"\0" for word in words]
    position = 8 + 8 * len(words) + gap
    table = b""
    for string in strings:
        table += struct.pack(">II", position, len(string))
        position += len(string)
    return struct.pack(">4sI", b"ARGS", len(words)) + table + bytes(gap) + b"".join(strings)


class Packet(NamedTuple):
    """What came in one piece: the bytes (b"" is the end) and the descriptors, which are the receiver's now."""

    data: bytes
    fds: list[int]

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


class Wire:
    """One end of a conversation that does as it is told. Owns its socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.settimeout(PATIENCE)
        #: What a packet of any size and any number of descriptors needs.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor's number."""
        return self._socket.fileno()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send one packet. OSError: EPERM where the peer refuses descriptors, EPIPE or ECONNRESET where it is gone."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)

    def receive(self, seconds: float = PATIENCE) -> Packet:
        """Return the next packet; TimeoutError where none comes within *seconds*. A peer that is gone gives b""."""
        self._socket.settimeout(seconds)
        try:
            data, ancillary, flags, _ = self._receive()
        except ConnectionResetError:  # it went without reading all that we sent; what it sent before is still here
            data, ancillary, flags, _ = self._receive()
        finally:
            self._socket.settimeout(PATIENCE)
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[: len(payload) // fds.itemsize * fds.itemsize])
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "the test's own buffers are too small"
        return Packet(data, list(fds))

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        room = socket.CMSG_SPACE(MANY * array.array("i").itemsize)
        return self._socket.recvmsg(ROOM, room, socket.MSG_CMSG_CLOEXEC)

    def peek(self) -> bytes:
        """Return the next packet's bytes and leave it where it is, so that hanging up throws it away unread."""
        return self._socket.recv(ROOM, socket.MSG_PEEK)

    def ask(self, data: bytes, fds: Sequence[int] = ()) -> bytes:
        """Send a packet, return the answer's bytes; descriptors that come with it are closed."""
        self.send(data, fds)
        answer = self.receive()
        answer.close()
        return answer.data

    def ends(self, seconds: float = PATIENCE) -> bool:
        """Return whether the peer hangs up within *seconds*, without another packet."""
        try:
            packet = self.receive(seconds)
        except TimeoutError:
            return False
        packet.close()
        return packet.data == b""

    def stop_sending(self) -> None:
        """Say that nothing follows; what comes can still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def shut_down(self) -> None:
        """Say that nothing follows, and read nothing more."""
        with contextlib.suppress(OSError):  # the peer is gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def pair() -> tuple[Wire, socket.socket]:
    """Return a wire, and the socket at its other end, which a process under test may inherit."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Wire(ours), theirs
