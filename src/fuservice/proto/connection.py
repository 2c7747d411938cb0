"""One end of a conversation, without I/O: it judges what arrives and builds what leaves.

Three outcomes, never mixed: a message; ``RefusalError`` (helper's side only: answer it and go on); ``RemoteProtocolError``
(theirs: end the conversation). Anything else that comes out is a bug of ours.
"""

from __future__ import annotations

import errno

from fuservice.errors import LocalProtocolError, NoHelloError, PeerGoneError, RefusalError, RemoteProtocolError
from fuservice.proto import layouts
from fuservice.proto import messages as m
from fuservice.proto.dialects import CURRENT, Dialect, of_hello
from fuservice.proto.states import BEFORE_MOUNT, ONCE, State, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _M = TypeVar("_M", bound=m.Message)

LARGEST_ERRNO = 4095  # MAX_ERRNO, include/linux/err.h


class _Connection:
    """What both ends share: the state, and which once-only commands have succeeded."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.state = State.CONNECTED
        self.done: set[type[m.Message]] = set()

    def _advance(self, kind: type[m.Message]) -> None:
        following = step(self.state, kind)
        if following is None:
            raise LocalProtocolError(f"{kind.__name__} in state {self.state.name}")
        self.state = following
        self.done.add(kind)


class HelperConnection(_Connection):
    """The helper's end. Order: hello, receive_hello, give(argv), give(fusedev), then receive and answer in turn."""

    def __init__(self, subtype: str, dialect: Dialect = CURRENT) -> None:
        super().__init__(dialect)
        self._subtype = subtype  # only for the sentence of a silent server
        self._pending: m.Message | type[m.Message] | None = None
        self._packets = self._bytes = 0

    def hello(self, flags: int) -> bytes:
        """Return the packet that opens the conversation; *flags* are ``layouts.CAN_…``."""
        self._advance(m.Hello)
        return self.dialect.hello(layouts.VERSION, layouts.VERSION, flags).encode()

    def receive_hello(self, packet: bytes) -> None:
        """Judge the answer to hello (b"" is end of file): size, magic, version, padding, in that order."""
        kind = self.dialect.hello_reply
        if len(packet) != kind.layout.size:
            sentence = f"wrong hello reply size {len(packet)}, expected {kind.layout.size}"
            raise RemoteProtocolError(sentence) if packet else NoHelloError(sentence)
        if layouts.MAGIC.unpack_from(packet)[0] != kind.magic:
            raise RemoteProtocolError(f"{self._subtype} service server did not reply to hello")
        version = kind.layout.unpack(packet)[1]
        if version != layouts.VERSION:
            raise RemoteProtocolError(f"unsupported protocol version {version}")
        try:
            kind.decode(packet)
        except RefusalError as refusal:
            raise RemoteProtocolError(str(refusal)) from None
        self._advance(m.HelloReply)

    def give(self, name: bytes) -> bytes:
        """Return the packet that carries the file *name* (argv, then fusedev); its descriptor goes with it."""
        self._advance(m.File)
        return m.File(0, name).encode()

    def receive(self, packet: bytes) -> m.Message:
        """Return the command in *packet* (b"" is end of file).

        RefusalError: a known command that we will not carry out: send what :meth:`answer` makes of its errno, go on.
        RemoteProtocolError: not the protocol, or too much of it: end the conversation.
        """
        if self._pending is not None:
            raise LocalProtocolError(f"{self._pending} was not answered")
        kind = self._recognize(packet)
        self._pending = kind  # so that even a command we cannot read has an answer of the right form
        command = self._pending = kind.decode(packet)
        command.check()
        self._judge_order(command)
        if isinstance(command, m.Goodbye):
            self._pending = None  # a good goodbye has no answer
            self._advance(command.role)
        return command

    def _recognize(self, packet: bytes) -> type[m.Message]:
        if not packet:
            raise PeerGoneError("fuse server exited without saying goodbye!")
        if not layouts.SMALLEST_PACKET <= len(packet) <= layouts.LARGEST_PACKET:
            limit = f"less than {layouts.LARGEST_PACKET}" if len(packet) > layouts.SMALLEST_PACKET else "at least 4"
            raise RemoteProtocolError(f"wrong command packet size {len(packet)}, expected {limit}")
        self._packets, self._bytes = self._packets + 1, self._bytes + len(packet)
        if self._packets > layouts.MOST_PACKETS or self._bytes > layouts.MOST_BYTES:
            raise RemoteProtocolError(
                f"fuse server talks too much: {self._packets} packets, {self._bytes} bytes; "
                f"at most {layouts.MOST_PACKETS} and {layouts.MOST_BYTES} are read"
            )
        word = layouts.MAGIC.unpack_from(packet)[0]
        if word not in self.dialect.by_magic:
            raise RemoteProtocolError(f"unrecognized packet {word:#010x}")
        return self.dialect.by_magic[word]

    def _judge_order(self, command: m.Message) -> None:
        kind = command.role
        if kind is m.Mount and self.state is State.MOUNTED:
            raise RefusalError(errno.EBUSY, "mount: Device or resource busy")
        if kind in self.done and kind in ONCE:
            raise RefusalError(errno.EINVAL, self.dialect.respecified[kind])
        if step(self.state, kind) is None:
            raise RefusalError(errno.EINVAL, f"{command.title} is out of order: {self.state.meaning}")
        if kind is m.Mount:
            for needed, sentence in BEFORE_MOUNT.items():
                if needed not in self.done:
                    raise RefusalError(errno.EINVAL, sentence)

    def answer(self, error: int = 0) -> bytes:
        """Return the packet that answers the pending command with errno *error*; 0 commits its step."""
        pending, self._pending = self._pending, None
        if pending is None:
            raise LocalProtocolError("there is no command to answer")
        kind = pending if isinstance(pending, type) else type(pending)
        if error == 0:
            self._advance(kind.role)
        if not issubclass(kind, m.Open):
            return m.Reply(error).encode()
        # libfuse's helper, too, says "?" for a path that it could not read.
        return m.File(error, pending.path if isinstance(pending, m.Open) else b"?").encode()


class ServiceConnection(_Connection):
    """The service's end. Order: receive_hello, reply, receive argv and fusedev, then command and receive in turn."""

    def __init__(self) -> None:
        super().__init__(CURRENT)  # until the helper's hello says otherwise
        self._outstanding: list[m.Message] = []  # commands without an answer, oldest first: answers come in order

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
        self._advance(m.Hello)
        return hello

    def reply(self) -> bytes:
        """Return the answer to hello."""
        self._advance(m.HelloReply)
        return self.dialect.hello_reply(layouts.VERSION).encode()

    def command(self, command: m.Message) -> bytes:
        """Return the packet of *command*; LocalProtocolError where the table does not allow it now."""
        kind = command.role
        command = self.dialect.spell(command)
        if step(self.state, kind) is None or (kind in ONCE and kind in self.done):
            raise LocalProtocolError(f"{kind.__name__} in state {self.state.name}")
        if command.magic not in self.dialect.by_magic:
            raise LocalProtocolError(f"{kind.__name__}: the {self.dialect.name} dialect has no such command")
        packet = command.encode()
        if kind is m.Goodbye:
            self._advance(kind)
        else:
            self._outstanding.append(command)
        return packet

    def receive_given(self, name: bytes, packet: bytes, fds: int) -> m.File:
        """Judge the unasked file *name* that arrived with *fds* descriptors."""
        given = self._file(name, packet, fds)
        self._advance(m.File)
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
            self._advance(command.role)

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
