"""The conversation from the helper's side: one command, one handler, one pass.

Whether we mounted decides how it ends, never what the service says of itself. What the service says reaches the caller
escaped, cut and counted.
"""

from __future__ import annotations

import errno
import os
import time

from fuservice import errors
from fuservice.errors import PeerGoneError, RefusalError, RemoteProtocolError, printable, shortened
from fuservice.helper import mtab, record
from fuservice.helper.attach import Plan, attach
from fuservice.helper.options import check_kernel_options, check_mtab_options
from fuservice.linux import fusedev, memfd
from fuservice.proto import layouts
from fuservice.proto import messages as m
from fuservice.proto.connection import HelperConnection
from fuservice.proto.dialects import CURRENT, DRAFT, DraftSetType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.helper.attach import Mount
    from fuservice.helper.caller import Caller
    from fuservice.helper.grants import Grants
    from fuservice.helper.mountpoint import MountPoint
    from fuservice.helper.request import Request
    from fuservice.linux.fds import Fd
    from fuservice.linux.sockets import SeqPacket
    from fuservice.proto.dialects import Dialect

    Attach = Callable[[Plan, MountPoint], Mount]

HELLO_TIMEOUT: Final = 30.0  # seconds for the answer to hello
MOST_COMPLAINTS: Final = 20
LONGEST_SOURCE: Final = 255  # fsconfig(2) takes strings of up to 256 bytes with the NUL


class Session:
    """One conversation; owns the fuse device and the mount until :meth:`run` returns."""

    def __init__(
        self, request: Request, grants: Grants, mount_point: MountPoint, *, caller: Caller,
        socket: SeqPacket, say: Callable[[str], None], read_only: bool = False, attach: Attach = attach, dialect: Dialect = CURRENT,
        hello_timeout: float = HELLO_TIMEOUT,
    ) -> None:  # fmt: skip
        """*say* takes one sentence for the caller. ``read_only``: the driver's manifest says so.

        *attach* is the back end that makes the mount.
        """
        self._request, self._grants, self._mount_point, self._caller = request, grants, mount_point, caller
        self._socket, self._say, self._attach_by = socket, say, attach
        self._hello_timeout = hello_timeout
        self._restrictions = request.options.restrictions | (layouts.MS_RDONLY if read_only else 0)
        self._connection = HelperConnection(request.subtype, dialect)
        self._device: Fd | None = None
        self._mount: Mount | None = None
        self._fuseblk = False
        self._fstype = f"fuse.{request.subtype}"
        self._source = self._mtab = b""
        self._kernel_options: dict[str, str | None] = {}
        self._complaints = 0

    def run(self) -> None:
        """Hold the conversation; returns once the mount is attached for good, raises FuserviceError and leaves nothing otherwise."""
        try:
            self._open_conversation()
            self._judge(self._converse())
            self._record()
        except BaseException:
            if self._mount is not None:
                self._mount.detach()
            self._grants.restore()
            raise
        finally:
            for owned in (self._socket, self._mount, self._device):
                if owned is not None:
                    owned.close()

    def _open_conversation(self) -> None:
        # Nothing that the service could attach is wanted: there is never a control buffer, and new kernels refuse it.
        self._socket.refuse_descriptors()
        self._socket.deadline = time.monotonic() + self._hello_timeout
        self._send(self._connection.hello(self._caller.abilities))
        self._connection.receive_hello(self._receive())
        self._socket.deadline = time.monotonic() + self._request.step_timeout
        with memfd.sealed(self._connection.dialect.memfd_name, self._request.argv_file) as file:
            self._device = self._open_device()  # before anything is sent: a service that gets the one gets the other
            self._send(self._connection.give(layouts.ARGV_NAME), file)
        self._send(self._connection.give(layouts.FUSEDEV_NAME), self._device)

    def _open_device(self) -> Fd:
        # Only root's own environment may name another file, and open_device() checks that it is the fuse device.
        environment = os.environ if self._caller.is_root and os.geteuid() == 0 else {}
        path = environment.get("FUSE_KERN_DEVICE", fusedev.DEVICE)
        try:
            return fusedev.open_device(path)
        except OSError as error:
            raise errors.PolicyError(f"{path}: {error.strerror}") from None

    def _converse(self) -> int:
        """Answer commands until the service says goodbye; return its exit code."""
        while True:
            self._socket.deadline = time.monotonic() + self._request.step_timeout
            try:
                command = self._connection.receive(self._receive())
                if isinstance(command, m.Goodbye):
                    return command.exit_code
                if isinstance(command, m.Open):
                    self._open(command)
                else:
                    self._carry_out(command)
                    self._send(self._connection.answer())
            except RefusalError as refusal:
                refused = self._connection.pending
                self._send(self._connection.answer(refusal.errno))
                if refusal.ends or (self._connection.dialect.refusal_ends and not (refused and refused.asks_for_file)):
                    raise
                if not (isinstance(refused, m.Open) and refused.quiet):
                    self._complain(refusal)

    def _judge(self, exit_code: int) -> None:
        if self._mount is not None:
            return
        if exit_code and self._connection.dialect is DRAFT:  # there, it is an errno
            signed = exit_code - (1 << 32 if exit_code >> 31 else 0)  # strerror(3) takes an int, and any
            raise RemoteProtocolError(f"initialization failed: {os.strerror(signed)}")
        if exit_code:
            raise RemoteProtocolError("fuse server failed mount, check dmesg/logs for details.")
        raise RemoteProtocolError("fuse server said goodbye without mounting anything.")

    def _record(self) -> None:
        """Write down what was mounted, after the goodbye: until then nobody serves the mount that mount(8) may look at."""
        if not self._caller.is_root or self._mount is None or self._mount_point.path is None:
            return
        place, source = os.path.abspath(self._mount_point.path), os.fsdecode(self._shown_source())  # noqa: PTH100
        record.write(self._mount.fileno(), {
            "mount point": place, "source": source, "type": self._request.subtype, "since": str(int(time.time())),
            "socket": self._request.socket_path, "namespace": record.namespace(), "helper": str(os.getpid()),
        })  # fmt: skip
        if self._mtab:
            fstype = f"{'fuseblk' if self._fuseblk else 'fuse'}.{self._request.subtype}"
            mtab.record(source, place, fstype, os.fsdecode(self._mtab))

    # ---- what a command asks for is done, or a RefusalError says why not ----

    def _open(self, command: m.Open) -> None:
        # Safe: a table look-up on bytes; what is opened is the inode that was pinned before the service was there.
        grant = self._grants.find(command.path)
        block_device = isinstance(command, m.OpenBlockDevice)
        with grant.open(command.flags, block_device=block_device) as fd:
            if block_device and command.block_size:
                grant.set_block_size(fd, command.block_size)
            self._send(self._connection.answer(), fd)

    def _carry_out(self, command: m.Message) -> None:
        match command:
            case DraftSetType():
                self._fuseblk = bool(command.flags & layouts.TYPE_FUSEBLK)
                self._fstype = os.fsdecode(check_plain("filesystem type", command.fstype))
            case m.SetType():
                self._fuseblk = bool(command.flags & layouts.TYPE_FUSEBLK)
            case m.SetSource():
                self._source = check_plain("mount source", command.source)
            case m.SetMountPoint():
                self._mount_point.check_named(command.path, command.kind, self._request.argv_words)
                if self._connection.dialect is CURRENT:  # in the draft, what is wrong with it is told by the mount
                    self._mount_point.check_pinned(command.kind)
                    self._caller.check_named(self._mount_point)
            case m.SetOptions():
                self._kernel_options = check_kernel_options(
                    command.options, self._request.options, may_allow_other=self._caller.may_allow_other, fuseblk=self._fuseblk
                )  # fmt: skip
            case m.SetMtab():
                self._mtab = check_mtab_options(check_plain("mtab options", command.options), self._request.options)
            case _:
                assert isinstance(command, m.Mount)
                self._attach(command.flags)

    def _attach(self, flags: int) -> None:
        # Safe: only bits that restrict pass; MS_BIND, MS_MOVE, MS_REMOUNT and the like never reach the kernel.
        if refused := flags & ~layouts.MS_ALLOWED:
            sentence = f"mount: Invalid argument (the fuse server asks for mount flags {refused:#x})"
            raise RefusalError(errno.EINVAL, sentence, ends=True)
        if self._fuseblk and not self._grants.source_is_block_device:
            # The kernel would open the source by itself: only what the caller named, and only a block device.
            raise RefusalError.of("creating filesystem", errno.ENOTBLK)
        self._mount_point.check_pinned()
        self._caller.check_mount(self._mount_point)
        assert self._device is not None
        plan = Plan(
            fuse_device=self._device, fuseblk=self._fuseblk, subtype=self._shown_subtype(), source=os.fsdecode(self._shown_source()),
            flags=self._caller.flags(flags, self._say) | self._restrictions, options=self._kernel_options,
        )  # fmt: skip
        try:
            self._mount = self._attach_by(plan, self._mount_point)
        except RefusalError as refusal:
            refusal.errno = self._connection.dialect.mount_errno or refusal.errno
            raise

    # ---- small things ----

    def _shown_subtype(self) -> str:
        """Return the subtype that mountinfo will show: the caller's word, whatever a draft's server would like to be."""
        asked = check_fstype(self._fstype)
        return asked if asked in ("", self._request.options.value("subtype")) else self._request.subtype

    def _shown_source(self) -> bytes:
        """Return the source that mountinfo will show: the server's if it is a plain word, else what the caller typed."""
        granted = self._grants.source or os.fsencode(self._request.subtype)
        if self._fuseblk or len(self._source) > LONGEST_SOURCE:
            return granted
        typed = {granted, os.fsencode(self._request.options.value("fsname") or "")}
        # A path that the caller did not type would show a mount of something else.
        return granted if b"/" in self._source and self._source not in typed else self._source

    def _send(self, packet: bytes, fd: Fd | None = None) -> None:
        try:
            self._socket.send(packet, None if fd is None else fd.fileno())
        except TimeoutError:
            raise PeerGoneError("fuse server does not read what we send: giving up") from None
        except ConnectionError:
            pass  # the next receive says what it left, or that it is gone

    def _receive(self) -> bytes:
        try:
            return self._socket.receive(layouts.LARGEST_PACKET)
        except TimeoutError:
            raise PeerGoneError("fuse server said nothing for too long: giving up") from None
        except ConnectionError:
            return b""

    def _complain(self, refusal: RefusalError) -> None:
        self._complaints += 1
        if self._complaints <= MOST_COMPLAINTS:
            kernel = "".join(f"\n Error: {printable(line)}" for line in refusal.details)  # as libfuse's helper has it
            self._say(printable(str(refusal), errors.LONGEST_SENTENCE) + kernel)
        elif self._complaints == MOST_COMPLAINTS + 1:
            self._say("more complaints are not shown")


def check_plain(what: str, word: bytes) -> bytes:
    """Return *word* if it can stand in mountinfo as it is; RefusalError(EINVAL) where it could forge a line or an escape."""
    text = os.fsdecode(word)
    if not text.isprintable() or "\\" in text:
        sentence = f"{what} `{shortened(text)}': control characters and backslashes are not shown in mountinfo"
        raise RefusalError(errno.EINVAL, sentence)
    return word


def check_fstype(fstype: str) -> str:
    """Return the subtype of *fstype*, a draft server's word ("" if it has none); RefusalError(EINVAL) where it is not FUSE's."""
    kind, _, subtype = fstype.partition(".")
    if kind not in ("fuse", "fuseblk") or "/" in subtype:
        sentence = f"{os.strerror(errno.EINVAL)}: `{shortened(fstype)}' is no type of a FUSE filesystem"
        raise RefusalError(errno.EINVAL, sentence)
    return subtype
