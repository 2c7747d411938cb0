"""Where one thread answers requests: the buffer that they are read into, and each one's way from there to the reply.

Rule: nothing that a driver does ends more than its request. What all threads have in common is handed in.
"""

from __future__ import annotations

import _thread
import errno
import mmap
import os

from fuservice.errors import printable
from fuservice.fuse import abi, codec
from fuservice.fuse.abi import Op
from fuservice.fuse.budget import Worker
from fuservice.fuse.codec import MalformedRequestError
from fuservice.fuse.failures import UnsupportedKernelError, answer_to
from fuservice.fuse.operations import Operations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from fuservice.fuse.budget import Budgets
    from fuservice.fuse.codec import Policy
    from fuservice.fuse.failures import Failures
    from fuservice.fuse.filesystem import Filesystem
    from fuservice.fuse.nodes import Nodes
    from fuservice.fuse.operations import Body, Handler

MAX_READ = 1 << 20  # bytes of one READ: 256 pages, the most that the kernel takes without a sysctl
MAX_WRITE = 1 << 16  # no write comes, but the kernel wants a buffer for one; the rest is for names and BATCH_FORGET
REQUEST_SIZE = MAX_WRITE + 4096

#: Writing: whoever asked has gone, or the whole mount has. The next read tells which.
NOBODY_WAITS = frozenset((errno.ENOENT, errno.ENODEV, errno.ECONNABORTED, errno.EPIPE))
#: What works on a handle that was opened, or that the kernel asks by itself: not judged by who asks (libfuse's allow_root).
ANYBODYS = frozenset((
    Op.READ, Op.WRITE, Op.FSYNC, Op.RELEASE, Op.READDIR, Op.READDIRPLUS, Op.FSYNCDIR, Op.RELEASEDIR, Op.NOTIFY_REPLY,
    Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.DESTROY, Op.INIT,
))  # fmt: skip
NO_REPLY = frozenset((Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY))

BODY = codec.BODY
_header, _head, _write, _writev = abi.IN_HEADER_START.unpack_from, abi.OUT_HEADER.pack, os.write, os.writev


def _too_early(_node: int, _size: int) -> Body:
    raise MalformedRequestError("request before INIT")


class Desk(Worker):
    """Reads nothing by itself: the session has requests put into ``request``, and calls :meth:`step`."""

    __slots__ = ("_failures", "_fd", "_nodes", "_only", "operations", "request", "table", "wake")

    def __init__(
        self, fd: int, filesystem: Filesystem, policy: Policy, budgets: Budgets, nodes: Nodes, failures: Failures
    ) -> None:
        super().__init__()
        self._fd, self._only, self._nodes, self._failures = fd, policy.only, nodes, failures
        self.request = bytearray(REQUEST_SIZE)  #: where requests are read into
        # On a page's boundary: what is copied to the kernel page by page must not lie across two of ours each time.
        into = memoryview(mmap.mmap(-1, MAX_READ))
        self.operations = Operations(filesystem, self.request, into, policy, budgets, nodes, failures)
        #: For each opcode its handler, and the least length of a request: before INIT there are none.
        self.table: list[tuple[Handler, int]] = [(_too_early, 0)] * abi.OP_LIMIT
        self.wake = _thread.allocate_lock()  #: the crew's: released when the thread is given the engine
        self.wake.acquire()

    def unique(self) -> int:
        """Return the kernel's number of the request that is being served, or was last."""
        return int(_header(self.request)[2])

    def begin(self, destroy: Handler) -> None:
        """Serve from now on what the driver offers; *destroy* is the handler of the last request."""
        self.table = self.operations.table()
        self.table[Op.DESTROY] = (destroy, 0)
        if self._only is not None:
            for opcode, (handler, least) in enumerate(self.table):
                if opcode not in ANYBODYS:
                    self.table[opcode] = (self._for_few(handler, self._only), least)

    def _for_few(self, handler: Handler, only: Collection[int]) -> Handler:
        """Return *handler* for requests of the users *only*; others get EACCES."""

        def judged(node: int, size: int) -> Body:
            if abi.IN_HEADER.unpack_from(self.request)[4] not in only:
                raise PermissionError(errno.EACCES, "another user's mount (allow_root)")
            return handler(node, size)

        return judged

    def step(self, size: int) -> None:
        """Answer the request of *size* bytes that lies in the buffer."""
        length, opcode, unique, node = _header(self.request)
        if length != size or size < BODY or not unique:
            raise MalformedRequestError(f"a request of {size} bytes says that it is number {unique}, of {length} bytes")
        try:
            handler, least = self.table[opcode]
        except IndexError:
            handler, least = self.table[0]
        try:
            if size < least:
                raise MalformedRequestError(f"{size} bytes, expected at least {least}")  # noqa: TRY301 - one place answers all
            body = handler(node, size)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is an answer; see failures
            self._refuse(opcode, unique, node, error)
            return
        try:
            if type(body) is bytes:
                _write(self._fd, _head(16 + len(body), 0, unique) + body)
            elif body is not None:
                _writev(self._fd, (_head(16 + len(body), 0, unique), body))
        except OSError as error:
            self._undelivered(opcode, unique, node, error)

    def step_aloud(self, size: int) -> None:
        """Log the request, and do the same."""
        _, opcode, unique, node = _header(self.request)
        path = printable(self._nodes.path(node, self._name(opcode)))
        self._failures.say(f"{unique}: {abi.OP_NAMES.get(opcode, opcode)} {path}, {size} bytes")
        self.step(size)

    def _undelivered(self, opcode: int, unique: int, node: int, error: OSError) -> None:
        if error.errno in NOBODY_WAITS:
            self.operations.take_back(opcode)
        else:
            # The kernel found the reply wrong. It may still wait for one, and with it whoever asked.
            self._refuse(opcode, unique, node, OSError(errno.EIO, f"the kernel refused the reply: {error.strerror}"))

    def _refuse(self, opcode: int, unique: int, node: int, error: Exception) -> None:
        """Answer *error*; log it if it is worth a line."""
        self._failures.note(opcode, node, self._name(opcode), error)
        self.operations.take_back(opcode)
        if opcode not in NO_REPLY:
            try:
                os.write(self._fd, _head(16, -answer_to(error), unique))
            except OSError as failed:
                if failed.errno not in NOBODY_WAITS:
                    raise
        if isinstance(error, UnsupportedKernelError):
            raise error

    def _name(self, opcode: int) -> bytes:
        """Return the name that the request is about, besides its node."""
        rest = bytes(self.request[BODY : BODY + abi.NAME_MAX]) if opcode == Op.LOOKUP else b""
        return rest.partition(b"\0")[0]
