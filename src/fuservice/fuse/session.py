"""The loop that serves one mount on an open /dev/fuse.

Rule: each request is answered before the next is read, unless its driver waits for a disk (``crew``), and nothing that a
driver does ends the loop. It ends when the kernel says that the mount is gone.
"""

from __future__ import annotations

import errno
import os

from fuservice.fuse import abi, codec
from fuservice.fuse.abi import Init, Op
from fuservice.fuse.budget import Budgets
from fuservice.fuse.codec import BODY, InitRequest, Policy
from fuservice.fuse.crew import Crew, rests_in
from fuservice.fuse.desk import MAX_READ, MAX_WRITE, Desk
from fuservice.fuse.failures import Failures, UnsupportedKernelError
from fuservice.fuse.nodes import Nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from fuservice.fuse.crew import Spare
    from fuservice.fuse.filesystem import Filesystem
    from fuservice.fuse.operations import Body

#: What we ask of the kernel. Not among them: POSIX_ACL (the kernel would enforce lists that a hostile image wrote),
#: HANDLE_KILLPRIV and WRITEBACK_CACHE (nothing is written), AUTO_INVAL_DATA (a driver that changes data gives open()
#: without KEEP_CACHE), ALLOW_IDMAP, PASSTHROUGH. NO_EXPORT_SUPPORT: file handles would outlive the driver's node numbers.
WANTED = (
    Init.ASYNC_READ | Init.ASYNC_DIO | Init.PARALLEL_DIROPS | Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO | Init.ABORT_ERROR
    | Init.MAX_PAGES | Init.NO_OPEN_SUPPORT | Init.NO_OPENDIR_SUPPORT | Init.INIT_EXT | Init.NO_EXPORT_SUPPORT
)  # fmt: skip

#: Reading: the request was interrupted before we had it, or the descriptor is non-blocking. Read again.
READ_AGAIN = frozenset((errno.ENOENT, errno.EINTR, errno.EAGAIN))


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
        spare: Sequence[Spare] = (),
    ) -> None:  # fmt: skip
        """``debug``: log every request. *spare*: threads that are ours; with them, requests wait for a slow disk each for itself."""
        self._fd, self._fs, self._debug, self._spare = fd, filesystem, debug, spare
        self.budgets = budgets or Budgets()
        self.nodes = Nodes(self.budgets)
        self._failures = Failures(log, self.nodes)
        self._policy = policy or Policy()
        self._desks = [self._desk() for _ in range(max(1, len(spare)))]  # one of the threads only watches the others
        self.crew = Crew(self._desks, self.budgets, self._lead)
        self.budgets.workers, self.budgets.running = self._desks, self.crew.running
        self.request, self.step = self._desks[0].request, self._desks[0].step  #: of the thread that calls run()
        self._desks[0].table[Op.INIT] = (self._init, BODY + abi.INIT_IN.size)
        if spare:
            filesystem.wait_with(self.crew.wait, self.crew.perhaps)
        self._destroyed = False
        self.minor = 0  #: the protocol's minor version, once it is negotiated

    def _desk(self) -> Desk:
        return Desk(self._fd, self._fs, self._policy, self.budgets, self.nodes, self._failures)

    def take_over(self) -> None:
        """Before run(): take the place of a server that has died, on the same open device, of the same unchanging filesystem.

        What was negotiated with it holds: no INIT comes (but if it had not answered that). The kernel sends again what it had
        read and not answered; OSError(EINVAL) where it cannot, before Linux 6.9. Open files must need no state: see
        ``Driver.restartable``.
        """
        self._begin(abi.KERNEL_MINOR_VERSION)
        self._desks[0].table[Op.INIT] = (self._init, BODY + abi.INIT_IN.size)
        os.write(self._fd, abi.OUT_HEADER.pack(abi.OUT_HEADER.size, abi.NOTIFY_RESEND, 0))

    def run(self) -> None:
        """Serve until the filesystem is unmounted or its connection aborted, then let the driver close: it blocks so long.

        Raises RemoteProtocolError if the kernel speaks a protocol that we do not, and OSError if reading *fd* fails for
        a reason of its own (EPERM: there is no mount yet).
        """
        try:
            self.crew.run(self._spare)
        finally:
            self._destroy()

    def _lead(self, desk: Desk) -> None:
        """Read requests, and have them answered at *desk*, until there are none, or somebody else reads."""
        readv, fd, into, crew, away = os.readv, self._fd, [desk.request], self.crew, self.crew.away
        step = desk.step_aloud if self._debug else desk.step
        while not crew.over:
            try:
                size = crew.without(desk, readv, fd, into) if away else readv(fd, into)
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
            if crew.leader is not desk:
                return

    def _init(self, _node: int, size: int) -> Body:
        offer = InitRequest(self.request, size)
        if offer.major > abi.KERNEL_VERSION:
            return codec.init_other_major()  # the kernel asks again, in our version
        if (offer.major, offer.minor) < (abi.KERNEL_VERSION, abi.OLDEST_MINOR_VERSION):
            raise UnsupportedKernelError(
                f"the kernel speaks FUSE {offer.major}.{offer.minor}, "
                f"expected {abi.KERNEL_VERSION}.{abi.OLDEST_MINOR_VERSION} or newer"
            )
        self._begin(min(offer.minor, abi.KERNEL_MINOR_VERSION))
        wanted = WANTED | (Init.CACHE_SYMLINKS if self._desks[0].operations.immutable else 0)
        # What is read ahead from a dead disk must not take all threads: two are left for whoever asks for names.
        background = max(1, len(self._desks) - 2) if self._spare else 0
        return codec.init_reply(offer, wanted, MAX_WRITE, MAX_READ // os.sysconf("SC_PAGE_SIZE"), background)

    def _begin(self, minor: int) -> None:
        """Serve requests of that minor version from now on."""
        self.minor = minor
        for desk in self._desks:
            desk.begin(self._last)

    def _last(self, _node: int, _size: int) -> Body:
        """DESTROY, of a fuseblk mount: umount(2) waits for the reply, so the device is closed before it."""
        self.crew.over = True
        if not self.crew.away:  # or who is there closes when he is back; the kernel asks for this when nothing is open
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
    return frame.f_code is Session._lead.__code__ or rests_in(frame)
