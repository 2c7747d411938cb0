"""The kernel's half of the protocol without a kernel: sends requests, judges replies as fs/fuse would."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from fuservice.fuse import abi
from fuservice.fuse.abi import Op
from fuservice.fuse.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from fuservice.fuse.budget import Budgets
    from fuservice.fuse.codec import Policy
    from fuservice.fuse.crew import Spare
    from fuservice.fuse.filesystem import Filesystem

EVERY_FLAG = (1 << 43) - 1
SILENT = {Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY}
#: Opcode → how long the body of a good reply is. Others have a size of their own, or may not be answered well at all.
SIZES = {
    Op.LOOKUP: 128, Op.GETATTR: 104, Op.STATX: 288, Op.OPEN: 16, Op.OPENDIR: 16, Op.STATFS: 80, Op.INIT: 64, Op.LSEEK: 8,
    Op.FLUSH: 0, Op.RELEASE: 0, Op.RELEASEDIR: 0, Op.ACCESS: 0, Op.DESTROY: 0,
}  # fmt: skip


def request(op: int, node: int = 1, body: bytes = b"", unique: int = 2) -> bytes:
    """Return one request as the kernel lays it out."""
    return abi.IN_HEADER.pack(abi.IN_HEADER.size + len(body), op, unique, node, 0, 0, 1, 0, 0) + body


def init_body(minor: int = 45, flags: int = EVERY_FLAG, major: int = 7, readahead: int = 131072) -> bytes:
    """Return the body of INIT: 16 bytes before 7.36, 64 since."""
    short = struct.pack("=IIII", major, minor, readahead, flags & 0xFFFFFFFF)
    return short + struct.pack("=I44x", flags >> 32) if minor >= 36 else short


def read_body(size: int, offset: int = 0, handle: int = 0) -> bytes:
    """Return the body of READ, READDIR and READDIRPLUS."""
    return abi.READ_IN.pack(handle, offset, size, 0, 0, 0, 0)


class Reply:
    """One reply: ``error`` is 0 or a positive errno."""

    def __init__(self, raw: bytes) -> None:
        length, error, self.unique = abi.OUT_HEADER.unpack_from(raw)
        # fuse_dev_do_write: what fails one of these is refused, and whoever asked waits for ever.
        assert length == len(raw)
        assert -511 <= error <= 0
        self.error, self.body = -error, raw[16:]
        assert not (self.error and self.body)


def names_in(body: bytes, *, plus: bool = False) -> list[tuple[bytes, int]]:
    """Return (name, node) for each record of a listing, read as fuse_parse_dirfile does; the node is 0 in a plain one."""
    found = []
    at = 0
    while at < len(body):
        node = struct.unpack_from("=Q", body, at)[0] if plus else 0
        if plus:
            good_entry(body[at : at + 128], may_be_empty=True)
            at += 128
        ino, offset, length, kind = abi.DIRENT.unpack_from(body, at)
        name = body[at + 24 : at + 24 + length]
        at += 24 + (length + 7 & ~7)
        assert ino
        assert 0 < offset < 1 << 63
        assert len(name) == length
        assert 1 <= length <= 255
        assert b"/" not in name
        assert b"\0" not in name
        assert kind in {0, *(kind >> 12 for kind in abi.FILE_TYPES)}
        found.append((name, node))
    assert at == len(body)
    return found


def good_attr(raw: bytes) -> None:
    """Judge a struct fuse_attr: fuse_invalid_attr and what is ours."""
    ino, size, blocks, _, _, _, ns1, ns2, ns3, mode, *_, blksize, flags = abi.ATTR.unpack(raw)
    assert ino
    assert size < 1 << 63
    assert blocks < 1 << 63
    assert max(ns1, ns2, ns3) < 10**9
    assert mode & abi.S_IFMT in abi.FILE_TYPES
    assert mode < 1 << 16
    assert blksize & (blksize - 1) == 0
    assert flags == 0


def good_entry(raw: bytes, *, may_be_empty: bool = False) -> None:
    """Judge a struct fuse_entry_out."""
    node, _, _, _, ns1, ns2, attr = abi.ENTRY_OUT.unpack(raw)
    assert max(ns1, ns2) < 10**9
    assert node != abi.ROOT_ID
    assert node or may_be_empty
    if node:
        good_attr(attr)


def good(op: int, body: bytes, asked: int) -> None:
    """Judge the body of a reply without error to *op*, which had room for *asked* bytes."""
    assert len(body) == SIZES.get(op, len(body))
    if op == Op.LOOKUP:
        good_entry(body, may_be_empty=True)
    elif op == Op.GETATTR:
        good_attr(body[16:])
    elif op in (Op.READDIR, Op.READDIRPLUS):
        names_in(body, plus=op == Op.READDIRPLUS)
    elif op == Op.READLINK:
        assert 1 <= len(body) <= 4095
        assert b"\0" not in body
    elif op in (Op.GETXATTR, Op.LISTXATTR):
        assert len(body) <= asked or (asked == 0 and len(body) == 8)
    if op in (Op.READ, Op.READDIR, Op.READDIRPLUS):
        assert len(body) <= asked


class Kernel:
    """A session whose device is one end of a socket pair, while we hold the other; requests are answered one by one."""

    def __init__(
        self,
        filesystem: Filesystem,
        policy: Policy | None = None,
        budgets: Budgets | None = None,
        *,
        init: bool = True,
        debug: bool = False,
        spare: Sequence[Spare] = (),
    ) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self._theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.log: list[str] = []
        self.session = Session(
            self._theirs.fileno(),
            filesystem,
            log=self.log.append,
            policy=policy,
            budgets=budgets,
            debug=debug,
            spare=spare,
        )
        if init:
            assert self.ask(Op.INIT, 0, init_body()).error == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ours.close()
        self._theirs.close()

    def step(self, raw: bytes) -> Reply | None:
        """Have one packet answered, whatever it is; None if nothing was."""
        self.session.request[: len(raw)] = raw
        self.session.step(len(raw))
        try:
            return Reply(self._ours.recv(2 << 20, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None

    def ask(self, op: int, node: int = 1, body: bytes = b"") -> Reply:
        """Make a request that must have an answer."""
        reply = self.step(request(op, node, body))
        assert reply is not None
        assert reply.unique == 2
        if not reply.error:
            asked = {Op.READ: 16, Op.READDIR: 16, Op.READDIRPLUS: 16, Op.GETXATTR: 0, Op.LISTXATTR: 0}.get(op)
            good(op, reply.body, struct.unpack_from("=I", body, asked)[0] if asked is not None else 0)
        return reply

    def tell(self, op: int, node: int = 1, body: bytes = b"") -> None:
        """Make a request that has no answer."""
        assert self.step(request(op, node, body)) is None

    def run(self, *requests: bytes) -> list[Reply]:
        """Let the session's own loop meet *requests* and then the end; return its replies."""
        for raw in requests:
            self._ours.send(raw)
        self._ours.shutdown(socket.SHUT_WR)
        self.session.run()
        replies = []
        while True:
            try:
                replies.append(Reply(self._ours.recv(2 << 20, socket.MSG_DONTWAIT)))
            except BlockingIOError:
                return replies
