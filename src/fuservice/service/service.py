"""One conversation with a mount helper, ours or libfuse's, step by step. Names in brackets are libfuse's ``fuse_service_…``."""

from __future__ import annotations

import errno
import os
import stat
import time

from fuservice.errors import EXIT_FAILURE, LocalProtocolError, PeerGoneError, RemoteProtocolError
from fuservice.linux import fdsockets, fusedev, memfd
from fuservice.proto import argv, layouts
from fuservice.proto import messages as m
from fuservice.proto.dialects import CURRENT
from fuservice.proto.service_connection import ServiceConnection
from fuservice.service.commandline import CommandLine, parse_cmdline_opts
from fuservice.service.handover import connected_socket, show_supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import TracebackType
    from typing import Final, Self

    from fuservice.linux.fds import Fd
    from fuservice.linux.fdsockets import FdSeqPacket

#: Seconds that the helper may take for what it sends at once (hello, argv, fusedev), and for each later step.
HELLO_TIMEOUT: Final = 5.0
STEP_TIMEOUT: Final = 300.0
#: In the environment: the uid of who connected, from a starter that knows better than our end of the connection.
CALLER: Final = "FUSERVICE_CALLER"


class Service:
    """The service's end of a conversation; owns the socket, and the fuse device until it is taken.

    Every call blocks until the helper answers. Errors: ``RemoteProtocolError`` where the helper is no helper (the
    conversation is over), ``OSError`` with the helper's errno where it refused.
    """

    def __init__(self, socket: FdSeqPacket) -> None:
        """Hold the opening of the conversation over *socket*, which is ours from now on."""
        self._socket = socket
        self._connection = ServiceConnection()
        self._device: Fd | None = None
        self._expected_kind = 0
        try:
            self._hello = self._connection.receive_hello(self._receive(HELLO_TIMEOUT)[0])
            self._send(self._connection.reply(), "hello reply")
            self.args = self._receive_argv_and_device()
        except BaseException:
            self.destroy()
            raise

    @classmethod
    def accept(cls) -> Self | None:
        """Return the conversation that this process was started for, or None: it was not started as a service. [accept]"""
        socket = connected_socket(os.environ)
        return None if socket is None else cls(socket)

    @property
    def accepted(self) -> bool:
        """Whether the conversation is still on. [accepted]"""
        return self._socket.fileno() >= 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.destroy()

    # ---- what the caller typed ----

    def append_args(self, args: Sequence[str]) -> list[str]:
        """Return our own *args* (the program's name first), followed by the caller's. [append_args]"""
        return [*args, *self.args[1:]]

    def cmdline(self, args: Sequence[str]) -> str:
        """Return one line for the process title: *args* as append_args() made them. [cmdline]"""
        return " ".join(args)

    def parse_cmdline_opts(self, args: Sequence[str], own: Collection[str] = ()) -> CommandLine:
        """Sort *args*; see commandline.parse_cmdline_opts. [parse_cmdline_opts]"""
        return parse_cmdline_opts(args, own)

    # ---- files ----

    def request_file(self, path: str, flags: int = os.O_RDONLY, mode: int = 0, *, quiet: bool = False) -> None:
        """Ask for the file that the caller typed as *path*; receive_file() gets it. [request_file]"""
        request = layouts.REQUEST_QUIET if quiet else 0
        self._command(m.Open(_path(path), flags, mode, request))

    def request_blockdev(
        self, path: str, flags: int = os.O_RDONLY, mode: int = 0, *, block_size: int = 0, quiet: bool = False
    ) -> None:
        """The same for a block device; *block_size* ≠ 0 (bytes) is set on it. ENOTBLK where it is none. [request_blockdev]"""
        request = layouts.REQUEST_QUIET if quiet else 0
        self._command(m.OpenBlockDevice(_path(path), flags, mode, request, block_size))

    def receive_file(self, path: str) -> Fd:
        """Return the answer to the oldest request, which the caller then owns; OSError naming *path*. [receive_file]"""
        packet, fds = self._receive()
        try:
            answer = self._connection.receive(packet, len(fds))
            if answer.error:
                raise OSError(answer.error, os.strerror(answer.error), path)
            return fds.pop()
        finally:
            for fd in fds:
                fd.close()

    def finish_file_requests(self) -> None:
        """No more files: from now on the kernel refuses descriptors that the helper sends. [finish_file_requests]"""
        self._socket.refuse_descriptors()

    # ---- the mount ----

    def can_allow_other(self) -> bool:
        """Whether the caller may use allow_other. [can_allow_other]"""
        return bool(self._hello.flags & layouts.CAN_ALLOW_OTHER)

    def can_fuseblk(self) -> bool:
        """Whether the caller may mount fuseblk. [can_fuseblk]"""
        return bool(self._hello.flags & layouts.CAN_FUSEBLK)

    def caller(self) -> int:
        """Return the real uid of the helper that connected: whose mount it will be.

        Who connected is SO_PEERCRED's to say; in a user namespace, where others have no number, our starter's.
        """
        told = os.environ.get(CALLER)
        return self._socket.peer().uid if told is None else int(told)

    def expect_mount_format(self, kind: int) -> None:
        """Say what the mount point must be: S_IFDIR, S_IFREG, or 0 for either. [expect_mount_format]"""
        if kind not in (0, stat.S_IFDIR, stat.S_IFREG):
            raise OSError(errno.EINVAL, f"mount point kind {kind:#o}, expected S_IFDIR, S_IFREG or 0")
        self._expected_kind = kind

    def take_fusedev(self) -> Fd:
        """Return the fuse device, which the caller then owns. Reading it before session_mount() returns is EPERM. [take_fusedev]"""
        if self._device is None:
            raise OSError(errno.EBADF, "the fuse device was taken already")
        device, self._device = self._device, None
        return device

    def session_mount(self, line: CommandLine, mount_point: str) -> None:
        """Have the filesystem mounted on *mount_point* as *line* says; the session may start then. [session_mount]

        OSError with the step that failed; UsageError, and nothing is asked, where *line* has words that nobody knows.
        """
        line.check_known()
        source = line.fsname or line.subtype or self.args[0]
        subtype = line.subtype or ("" if line.fsname else self.args[0])
        self._ask("service fsopen", self._connection.set_type(subtype, fuseblk=line.fuseblk))
        self._ask("service fs source", m.SetSource(os.fsencode(source)))
        self._ask("service fs mountpoint", m.SetMountPoint(_path(mount_point), self._expected_kind))
        if line.kernel:
            self._ask("service fs mount options", m.SetOptions(os.fsencode(",".join(line.kernel))))
        if line.mtab and self._connection.dialect is CURRENT:  # the draft has no word for it
            self._ask("service fs mtab options", m.SetMtab(os.fsencode(",".join(line.mtab))))
        self._ask("service mount", m.Mount(line.flags))

    # ---- the end ----

    def send_goodbye(self, exit_code: int) -> None:
        """Say that we are done with the helper, which ends with *exit_code* if it is libfuse's. [send_goodbye]"""
        try:
            self._command(m.Goodbye(exit_code & 0xFFFF_FFFF))
        except PeerGoneError:
            return
        self._socket.shut_down()

    def release(self) -> None:
        """Close the socket; what was taken stays open. [release]"""
        self._socket.close()

    def destroy(self) -> None:
        """Close everything that was not taken; a second call does nothing. [destroy]"""
        self._socket.close()
        if self._device is not None:
            self._device.close()
            self._device = None

    @staticmethod
    def exit(failed: bool) -> int:  # noqa: FBT001
        """Return the exit code of a service process. libfuse's also waits 2 s after a failure, for the journal. [exit]"""
        return int(failed)

    # ---- inside ----

    def _ask(self, step: str, command: m.Message) -> None:
        if self._connection.unanswered:
            raise LocalProtocolError(f"{step}: a file was asked for, and not received")
        self._command(command)
        packet, fds = self._receive()
        for fd in fds:
            fd.close()
        error = self._connection.receive(packet, len(fds)).error
        if error:
            raise OSError(error, f"{step}: {os.strerror(error)}")

    def _command(self, command: m.Message) -> None:
        try:
            packet = self._connection.command(command)
        except ValueError as error:  # the words are the caller's: there is a limit to what fits in a packet
            raise OSError(errno.E2BIG, str(error)) from None
        self._send(packet, command.title)

    def _send(self, packet: bytes, title: str) -> None:
        self._socket.deadline = time.monotonic() + STEP_TIMEOUT
        try:
            self._socket.send(packet)
        except (ConnectionError, TimeoutError) as error:
            raise PeerGoneError(f"send {title}: {error.strerror or error}") from None

    def _receive(self, timeout: float | None = None) -> tuple[bytes, list[Fd]]:
        timeout = STEP_TIMEOUT if timeout is None else timeout
        self._socket.deadline = time.monotonic() + timeout
        try:
            return self._socket.receive_with_fds(layouts.LARGEST_PACKET)
        except ConnectionError:
            return b"", []
        except TimeoutError:
            raise PeerGoneError(f"the helper said nothing for {timeout:.0f} s") from None
        except fdsockets.TruncatedPacketError as error:
            raise RemoteProtocolError(f"the helper sent {error}") from None

    def _receive_given(self, name: bytes) -> Fd:
        packet, fds = self._receive(HELLO_TIMEOUT)
        try:
            given = self._connection.receive_given(name, packet, len(fds))
            if given.error:
                raise RemoteProtocolError(f"{os.fsdecode(name)}: the helper has none: {os.strerror(given.error)}")
            return fds.pop()
        finally:
            for fd in fds:
                fd.close()

    def _receive_argv_and_device(self) -> list[str]:
        with self._receive_given(layouts.ARGV_NAME) as file:
            self._device = self._receive_device()
            try:
                return [os.fsdecode(word) for word in argv.decode(_read_whole(file.fileno()))]
            except RemoteProtocolError:
                self.send_goodbye(EXIT_FAILURE)  # the helper is one, and can tell its caller that we failed
                raise

    def _receive_device(self) -> Fd:
        device = self._receive_given(layouts.FUSEDEV_NAME)
        if not fusedev.is_fuse_device(device.fileno()):
            device.close()
            raise RemoteProtocolError("fusedev: expected the fuse device (character device 10:229), got something else")
        show_supervisor(device.fileno())
        return device


def _read_whole(fd: int) -> bytes:
    """Return what is in the argv file *fd*: a memory file of bounded size, read at fixed offsets.

    libfuse's helper seals nothing, so what was read is judged as one string of bytes, and the file not looked at again.
    """
    try:
        if memfd.seals(fd) is None or os.fstat(fd).st_size > argv.LARGEST_FILE:
            raise RemoteProtocolError(f"service args file: expected a memfd of at most {argv.LARGEST_FILE} bytes")
        return os.pread(fd, argv.LARGEST_FILE + 1, 0)
    except OSError as error:
        raise RemoteProtocolError(f"service args file: cannot be read: {error.strerror}") from None


def _path(path: str) -> bytes:
    """Return *path* as bytes; OSError(ENOENT) where it is empty, as open(2) has it: the protocol cannot say it."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return os.fsencode(path)
