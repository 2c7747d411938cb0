"""A server on request: it listens where a helper looks for it, and then says what the test tells it to say."""

from __future__ import annotations

import os
import select
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.peers import wire
from tests.peers.wire import PATIENCE, Packet, Wire


class Listening:
    """A socket at DIRECTORY/SUBTYPE, as an activator would hold it; owns both the descriptor and the name."""

    def __init__(self, directory: Path | str, subtype: str = "x", mode: int = 0o220) -> None:
        self.path = f"{directory}/{subtype}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(self.path)
        os.chmod(self.path, mode)  # noqa: PTH101 - a str, as sockaddr_un wants it
        self._socket.listen()
        self._socket.settimeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def asked(self) -> bool:
        """Return whether somebody has connected and was not accepted yet."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def accept(self) -> Wire:
        """Return the next conversation; nothing was said yet."""
        return Wire(self._socket.accept()[0])

    def close(self) -> None:
        """Stop listening, and remove the name if it is still a socket."""
        self._socket.close()
        if os.path.lexists(self.path) and stat.S_ISSOCK(os.lstat(self.path).st_mode):
            os.unlink(self.path)  # noqa: PTH108


class Opening(NamedTuple):
    """What an honest opening gives a server: the two files. The descriptors are the test's."""

    argv: Packet
    device: Packet

    def close(self) -> None:
        """Close both; without the device a mount dies."""
        self.argv.close()
        self.device.close()


def open_conversation(conversation: Wire) -> Opening:
    """Greet as an honest server does, and take argv and fuse device."""
    assert conversation.receive().data == wire.saft()
    conversation.send(wire.last())
    argv, device = conversation.receive(), conversation.receive()
    assert (argv.data, device.data) == (wire.file(0, "argv"), wire.file(0, "fusedev"))
    return Opening(argv, device)
