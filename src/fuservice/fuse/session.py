"""The loop that serves one mount on an open /dev/fuse.

Rule: each request is answered before the next is read, from one thread, and nothing that a driver does ends the loop.
It ends when the kernel says that the mount is gone.
"""

from __future__ import annotations

import errno
import mmap
import os

from fuservice.errors import printable
from fuservice.fuse import abi, codec
from fuservice.fuse.abi import Init, Op
from fuservice.fuse.budget import Budgets
from fuservice.fuse.codec import InitRequest, MalformedRequestError, Policy
from fuservice.fuse.failures import Failures, UnsupportedKernelError, answer_to
from fuservice.fuse.nodes import Nodes
from fuservice.fuse.operations import Operations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

    from fuservice.fuse.filesystem import Filesystem
    from fuservice.fuse.operations import Body, Handler

MAX_READ = 1 << 20  # bytes of one READ: 256 pages, the most that the kernel takes without a sysctl
MAX_WRITE = 1 << 16  # no write comes, but the kernel wants a buffer for one; the rest is for names and BATCH_FORGET
REQUEST_SIZE = MAX_WRITE + 4096

#: What we ask of the kernel. Not among them: POSIX_ACL (the kernel would enforce lists that a hostile image wrote),
#: HANDLE_KILLPRIV and WRITEBACK_CACHE (nothing is written), AUTO_INVAL_DATA (a driver that changes data gives open()
#: without KEEP_CACHE), ALLOW_IDMAP, PASSTHROUGH. NO_EXPORT_SUPPORT: file handles would outlive the driver's node numbers.
WANTED = (
    Init.ASYNC_READ | Init.ASYNC_DIO | Init.PARALLEL_DIROPS | Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO | Init.ABORT_ERROR
    | Init.MAX_PAGES | Init.NO_OPEN_SUPPORT | Init.NO_OPENDIR_SUPPORT | Init.INIT_EXT | Init.NO_EXPORT_SUPPORT
)  # fmt: skip

#: Reading: the request was interrupted before we had it, or the descriptor is non-blocking. Read again.
READ_AGAIN = frozenset((errno.ENOENT, errno.EINTR, errno.EAGAIN))
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


class Session:
    """Serves *filesystem* to the kernel on *fd*.

    *fd* is an open, blocking /dev/fuse whose mount exists already (read(2) says EPERM before that: wait for the helper's
    word). It is borrowed: the caller closes it, after :meth:`run`. *log* takes one printable line at a time; nothing else
    is ever printed. *filesystem* belongs to this session alone: the attributes it returns are cached in checked form.
    The budget of time is kept by a :class:`~fuservice.fuse.watch.Watch` around :meth:`run`, all others here.
    """

    def __init__(
        self, fd: int, filesystem: Filesystem, *,
        log: Callable[[str], None], policy: Policy | None = None, budgets: Budgets | None = None, debug: bool = False,
    ) -> None:  # fmt: skip
        """``debug``: log every request."""
        self._fd, self._fs, self._debug = fd, filesystem, debug
        self.request = bytearray(REQUEST_SIZE)  #: where requests are read into
        self.budgets = budgets or Budgets()
        self.budgets.request = self.unique
        self.nodes = Nodes(self.budgets)
        self._failures = Failures(log, self.nodes)
        # On a page's boundary: what is copied to the kernel page by page must not lie across two of ours each time.
        into = memoryview(mmap.mmap(-1, MAX_READ))
        policy = policy or Policy()
        self._only = policy.only
        self._operations = Operations(filesystem, self.request, into, policy, self.budgets, self.nodes, self._failures)
        init: tuple[Handler, int] = (self._init, BODY + abi.INIT_IN.size)
        self._table: list[tuple[Handler, int]] = [(_too_early, 0)] * abi.OP_LIMIT
        self._table[Op.INIT] = init
        self._over = self._destroyed = False
        self.minor = 0  #: the protocol's minor version, once it is negotiated

    def unique(self) -> int:
        """Return the kernel's number of the request that is being served, or was last."""
        return int(_header(self.request)[2])

    def run(self) -> None:
        """Serve until the filesystem is unmounted or its connection aborted, then let the driver close: it blocks so long.

        Raises RemoteProtocolError if the kernel speaks a protocol that we do not, and OSError if reading *fd* fails for
        a reason of its own (EPERM: there is no mount yet).
        """
        try:
            self._serve()
        finally:
            self._destroy()

    def _serve(self) -> None:
        readv, fd, into, step = os.readv, self._fd, [self.request], self._step_aloud if self._debug else self.step
        while not self._over:
            try:
                size = readv(fd, into)
            except OSError as error:
                if error.errno in READ_AGAIN:
                    continue
                if error.errno == errno.ECONNABORTED:
                    self._failures.say("the kernel's connection was aborted")
                elif error.errno != errno.ENODEV:
                    raise
                return
            if not size:
                return  # the far end of a socket that stands in for the device
            step(size)

    def step(self, size: int) -> None:
        """Answer the request of *size* bytes that lies in the buffer."""
        length, opcode, unique, node = _header(self.request)
        if length != size or size < BODY or not unique:
            raise MalformedRequestError(f"a request of {size} bytes says that it is number {unique}, of {length} bytes")
        try:
            handler, least = self._table[opcode]
        except IndexError:
            handler, least = self._table[0]
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

    def _step_aloud(self, size: int) -> None:
        _, opcode, unique, node = _header(self.request)
        path = printable(self.nodes.path(node, self._name(opcode)))
        self._failures.say(f"{unique}: {abi.OP_NAMES.get(opcode, opcode)} {path}, {size} bytes")
        self.step(size)

    def _undelivered(self, opcode: int, unique: int, node: int, error: OSError) -> None:
        if error.errno in NOBODY_WAITS:
            self._operations.take_back(opcode)
        else:
            # The kernel found the reply wrong. It may still wait for one, and with it whoever asked.
            self._refuse(opcode, unique, node, OSError(errno.EIO, f"the kernel refused the reply: {error.strerror}"))

    def _refuse(self, opcode: int, unique: int, node: int, error: Exception) -> None:
        """Answer *error*; log it if it is worth a line."""
        self._failures.note(opcode, node, self._name(opcode), error)
        self._operations.take_back(opcode)
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

    def _init(self, _node: int, size: int) -> Body:
        offer = InitRequest(self.request, size)
        if offer.major > abi.KERNEL_VERSION:
            return codec.init_other_major()  # the kernel asks again, in our version
        if (offer.major, offer.minor) < (abi.KERNEL_VERSION, abi.OLDEST_MINOR_VERSION):
            raise UnsupportedKernelError(
                f"the kernel speaks FUSE {offer.major}.{offer.minor}, "
                f"expected {abi.KERNEL_VERSION}.{abi.OLDEST_MINOR_VERSION} or newer"
            )
        self.minor = min(offer.minor, abi.KERNEL_MINOR_VERSION)
        self._table = self._operations.table()
        self._table[Op.DESTROY] = (self._last, 0)
        if self._only is not None:
            for opcode, (handler, least) in enumerate(self._table):
                if opcode not in ANYBODYS:
                    self._table[opcode] = (self._for_few(handler, self._only), least)
        wanted = WANTED | (Init.CACHE_SYMLINKS if self._operations.immutable else 0)
        return codec.init_reply(offer, wanted, MAX_WRITE, MAX_READ // os.sysconf("SC_PAGE_SIZE"))

    def _for_few(self, handler: Handler, only: Collection[int]) -> Handler:
        """Return *handler* for requests of the users *only*; others get EACCES."""

        def judged(node: int, size: int) -> Body:
            if abi.IN_HEADER.unpack_from(self.request)[4] not in only:
                raise PermissionError(errno.EACCES, "another user's mount (allow_root)")
            return handler(node, size)

        return judged

    def _last(self, _node: int, _size: int) -> Body:
        """DESTROY, of a fuseblk mount: umount(2) waits for the reply, so the device is closed before it."""
        self._over = True
        self._destroy()
        return b""

    def _destroy(self) -> None:
        if not self._destroyed:
            self._destroyed = True
            try:
                self._fs.destroy()
            except Exception as error:  # noqa: BLE001 - the mount is gone: there is nobody else to tell
                self._failures.note(Op.DESTROY, abi.ROOT_ID, b"", error)


def waits_in(frame: FrameType) -> bool:
    """Say whether *frame*, the innermost one, is the loop of a session, between two requests."""
    return frame.f_code is Session._serve.__code__
