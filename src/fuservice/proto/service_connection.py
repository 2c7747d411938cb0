"""The service's end of a conversation, without I/O. It has nothing to refuse: what is wrong here ends the conversation."""

from __future__ import annotations

from fuservice.errors import LocalProtocolError, RefusalError, RemoteProtocolError
from fuservice.proto import layouts
from fuservice.proto import messages as m
from fuservice.proto.connection import Connection
from fuservice.proto.dialects import CURRENT, DRAFT, DraftHello, DraftOpen, DraftSetMountPoint, DraftSetType
from fuservice.proto.states import ONCE, State, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from fuservice.proto.dialects import Dialect

    _M = TypeVar("_M", bound=m.Message)

LARGEST_ERRNO = 4095  # MAX_ERRNO, include/linux/err.h


class ServiceConnection(Connection):
    """The service's end. Order: receive_hello, reply, receive argv and fusedev, then command and receive in turn."""

    def __init__(self) -> None:
        super().__init__(CURRENT)  # until the helper's hello says otherwise
        self._outstanding: list[m.Message] = []  # commands without an answer, oldest first: answers come in order

    @property
    def unanswered(self) -> bool:
        """Whether a command still waits for its answer."""
        return bool(self._outstanding)

    def receive_hello(self, packet: bytes) -> m.Hello:
        """Judge the helper's hello, and go on in its dialect; RemoteProtocolError where we have no version in common."""
        self.dialect = of_hello(packet)
        if len(packet) != self.dialect.hello.layout.size:
            raise RemoteProtocolError(f"wrong service hello size {len(packet)}, expected {m.Hello.layout.size}")
        if layouts.MAGIC.unpack_from(packet)[0] != m.Hello.magic:
            raise RemoteProtocolError("service server did not send hello command")
        hello = self.dialect.hello.decode(packet)
        if hello.oldest > hello.newest:
            raise RemoteProtocolError(
                f"min service protocol version {hello.oldest} must be less than max {hello.newest}"
            )
        if hello.oldest > layouts.VERSION:
            raise RemoteProtocolError(
                f"min service protocol version {hello.oldest} too new to support version {layouts.VERSION}"
            )
        if hello.newest < layouts.VERSION:
            raise RemoteProtocolError(
                f"max service protocol version {hello.newest} too old to support version {layouts.VERSION}"
            )
        self.advance(m.Hello)
        return hello

    def reply(self) -> bytes:
        """Return the answer to hello."""
        self.advance(m.HelloReply)
        return self.dialect.hello_reply(layouts.VERSION).encode()

    def command(self, command: m.Message) -> bytes:
        """Return the packet of *command*; LocalProtocolError where the table does not allow it now."""
        kind = command.role
        command = spell(self.dialect, command)
        if step(self.state, kind) is None or (kind in ONCE and kind in self.done):
            raise LocalProtocolError(f"{kind.__name__} in state {self.state.name}")
        if command.magic not in self.dialect.by_magic:
            raise LocalProtocolError(f"{kind.__name__}: the {self.dialect.name} dialect has no such command")
        packet = command.encode()
        if kind is m.Goodbye:
            self.advance(kind)
        else:
            self._outstanding.append(command)
        return packet

    def set_type(self, subtype: str, *, fuseblk: bool) -> m.SetType:
        """Return the message that begins a mount of *subtype* ("": none is shown), in this dialect."""
        if self.dialect is CURRENT:
            return m.SetType(layouts.TYPE_FUSEBLK if fuseblk else 0)
        fstype = "fuseblk" if fuseblk else "fuse"
        return DraftSetType((f"{fstype}.{subtype}" if subtype else fstype).encode("utf-8", "surrogateescape"))

    def receive_given(self, name: bytes, packet: bytes, fds: int) -> m.File:
        """Judge the unasked file *name* that arrived with *fds* descriptors."""
        given = self._file(name, packet, fds)
        self.advance(m.File)
        return given

    def receive(self, packet: bytes, fds: int) -> m.File | m.Reply:
        """Return the answer to the oldest unanswered command, which came with *fds* descriptors."""
        if not self._outstanding:
            raise RemoteProtocolError(f"an answer of {len(packet)} bytes to no command")
        command = self._outstanding.pop(0)
        answer = self._file(command.path, packet, fds) if isinstance(command, m.Open) else _reply(command, packet, fds)
        if answer.error == 0:
            self._granted(command)
        return answer

    def _granted(self, command: m.Message) -> None:
        """Take the step of *command*. Commands may be sent without waiting: it was legal then, and may not be now."""
        if self.state is State.CLOSED:  # we said goodbye meanwhile
            self.done.add(command.role)
        elif step(self.state, command.role) is None:
            raise RemoteProtocolError(f"the helper said yes to {command.title} out of order: {self.state.meaning}")
        else:
            self.advance(command.role)

    def _file(self, name: bytes, packet: bytes, fds: int) -> m.File:
        shown, expected = name.decode("utf-8", "backslashreplace"), m.File.layout.size + len(name) + 1
        if len(packet) < m.File.layout.size + 2:
            raise RemoteProtocolError(f"wrong service file reply size {len(packet)}, expected {expected}")
        file = _decode(m.File, packet)
        if file.path != name:
            got = file.path.decode("utf-8", "backslashreplace")
            raise RemoteProtocolError(f"`{shown}': not the requested service file, got `{got}'")
        if fds != (1 if file.error == 0 else 0):
            what = "no error" if file.error == 0 else f"error {file.error}"
            raise RemoteProtocolError(f"did not receive valid fd for `{shown}' but {what}? (got {fds} descriptors)")
        return file


def of_hello(packet: bytes) -> Dialect:
    """Return the dialect of a helper's hello, by its length; CURRENT for any other, so that its judgement applies."""
    return DRAFT if len(packet) == DraftHello.layout.size else CURRENT


def spell(dialect: Dialect, command: m.Message) -> m.Message:
    """Return *command* in the class of *dialect*. What the draft has no word for is left out."""
    if dialect is CURRENT or type(command) is not command.role:
        return command
    if type(command) is m.Open:
        return DraftOpen(command.path, command.flags, command.mode)
    if isinstance(command, m.SetMountPoint):
        return DraftSetMountPoint(command.path)
    return command


def _reply(command: m.Message, packet: bytes, fds: int) -> m.Reply:
    name = command.title.removesuffix(" command")
    if fds:
        raise RemoteProtocolError(f"service {name} reply came with {fds} descriptors, expected none")
    if len(packet) != m.Reply.layout.size:
        raise RemoteProtocolError(f"wrong service {name} reply size {len(packet)}, expected {m.Reply.layout.size}")
    return _decode(m.Reply, packet)


def _decode(kind: type[_M], packet: bytes) -> _M:
    """Decode an answer of the helper: it has no answer of its own, so what is malformed ends the conversation."""
    if layouts.MAGIC.unpack_from(packet)[0] != kind.magic:
        raise RemoteProtocolError(f"expected a {kind.title}, got packet {packet[:4].hex()}")
    try:
        message = kind.decode(packet)
    except RefusalError as refusal:
        raise RemoteProtocolError(str(refusal)) from None
    if not 0 <= getattr(message, "error", 0) <= LARGEST_ERRNO:
        raise RemoteProtocolError(
            f"{kind.title} says error {getattr(message, 'error', 0)}, expected 0..{LARGEST_ERRNO}"
        )
    return message
