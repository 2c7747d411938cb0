"""One conversation of the helper inside this process: what the server says lies ready before the session starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fuservice.cli.commandline import CommandLine
from fuservice.errors import FuserviceError
from fuservice.helper.attach import attach
from fuservice.helper.caller import Caller
from fuservice.helper.fuseconf import FuseConf
from fuservice.helper.grants import Grants
from fuservice.helper.manifest import parse
from fuservice.helper.mountpoint import MountPoint
from fuservice.helper.session import Session
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.proto.dialects import CURRENT, Dialect
from tests.peers import wire
from tests.peers.wire import Wire
from tests.support.mounts import Mount, mounted

DRAFT_LAST = b"LAST\0\1??"


class Held(NamedTuple):
    """What a conversation came to."""

    error: FuserviceError | None
    answers: list[bytes]
    said: list[str]
    mount: Mount | None


class Place:
    """An image and a mount point."""

    def __init__(self, tmp_path: Path, point: Path) -> None:
        self.image, self.point = tmp_path / "image", point
        self.image.write_bytes(b"image")

    def session(self, end: FdSeqPacket, said: list[str], *words: str, new_api: bool, dialect: Dialect, uid: int,
                rules: str, conf: FuseConf, hello_timeout: float) -> tuple[Session, Callable[[], None]]:  # fmt: skip
        """Return a session over *end*, and what lets its pins go."""
        request = CommandLine(["p", str(self.image), str(self.point), "-t", "x", *words])
        manifest = parse(rules, "m")
        grants, point = Grants(request, manifest), MountPoint(request.mount_point)

        def close() -> None:
            grants.close()
            point.close()

        return Session(
            request, grants, point, caller=Caller(conf, uid), socket=end, say=said.append, read_only=manifest.read_only,
            attach=partial(attach, new_api=new_api), dialect=dialect, hello_timeout=hello_timeout,
        ), close  # fmt: skip

    def hold(
        self, packets: Sequence[bytes], *words: str, new_api: bool = True, dialect: Dialect = CURRENT, uid: int = 0,
        rules: str = "source any rw", conf: FuseConf | None = None, goodbye: bytes | None = wire.byee(0),
        gone: bool = True, hello_timeout: float = 5.0, hello: bytes | None = None,
        little_room: bool = False, closed: bool = False,
    ) -> Held:  # fmt: skip
        """Hold a conversation with a server whose packets, after an honest hello, are *packets* and *goodbye*."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said: list[str] = []
        with Wire(ours) as server, FdSeqPacket(owned(theirs)) as end:
            greeting = hello if hello is not None else (wire.last() if dialect is CURRENT else DRAFT_LAST)
            for packet in (greeting, *packets, *([goodbye] if goodbye is not None else [])):
                server.send(packet)
            if gone:
                server.stop_sending()
            if little_room:
                leave_little_room(end)
            if closed:
                server.close()
            session, close = self.session(
                end, said, *words, new_api=new_api, dialect=dialect, uid=uid, rules=rules, conf=conf or FuseConf(),
                hello_timeout=hello_timeout,
            )  # fmt: skip
            try:
                error = run(session)
            finally:
                close()
            answers = []
            while not closed and (answer := server.receive()).data:
                answer.close()
                answers.append(answer.data)
        return Held(error, answers[3:], said, mounted(self.point))

    def agreed(self, *more: bytes, doit: int = 6) -> list[bytes]:
        """Return an honest server's packets, with *more* before it asks for the mount."""
        return [wire.type_(), wire.name("source"), wire.mntp(self.point), *more, wire.doit(doit)]


def owned(end: socket.socket) -> Fd:
    """Return the descriptor of *end*, which gives it up."""
    return Fd(end.detach())


def leave_little_room(end: FdSeqPacket) -> None:
    """Make the buffer for what *end* sends as small as can be."""
    with socket.socket(fileno=os.dup(end.fileno())) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def run(session: Session) -> FuserviceError | None:
    """Run *session*; return the error that it ended with."""
    try:
        session.run()
    except FuserviceError as error:
        return error
    return None
