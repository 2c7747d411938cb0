"""A hostile kernel, so to say: requests on a fuse device, judged by a session that serves a small tree."""

from __future__ import annotations

import os

from fuservice.drivers.memtree import File, Memtree, Symlink
from fuservice.errors import RemoteProtocolError
from fuservice.fuse import abi
from fuservice.fuse.session import Session
from tests.fuse.fakekernel import init_body, request

DEVICE = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)  # replies are checked as they are made; nobody reads them


def tree() -> Memtree:
    """Return what is served."""
    big = File(size=1 << 40, extents={0: b"start", 1 << 30: b"far"}, xattrs={b"user.a": b"1"})
    return Memtree({"file": b"content", "big": big, "directory": {"link": Symlink(b"../file")}})


def conversation(data: bytes) -> None:
    """Take steps: an opcode, a node, be16 for how many bytes of body, and these; opcode 255 brings its own header."""
    session = Session(DEVICE, tree(), log=_unheard)
    _step(session, request(abi.Op.INIT, 0, init_body()))
    while len(data) > 3:
        opcode, node, size = data[0], data[1], int.from_bytes(data[2:4], "big")
        body, data = data[4 : 4 + size], data[4 + size :]
        if not _step(session, body if opcode == 255 else request(opcode, node, body)):
            return


def _step(session: Session, packet: bytes) -> bool:
    """Give *packet* to *session*; return whether the conversation goes on."""
    session.request[: len(packet)] = packet
    try:
        session.step(len(packet))
    except RemoteProtocolError:  # a header that lies: no kernel would
        return False
    return not session.crew.over  # after DESTROY nothing is asked


def _unheard(line: str) -> None:
    assert line.isprintable(), line
