"""What both ends of a conversation share, and the helper's end, without I/O: it judges what arrives and builds what leaves.

Three outcomes, never mixed: a message; ``RefusalError`` (helper's side only: answer it and go on); ``RemoteProtocolError``
(theirs: end the conversation). Anything else that comes out is a bug of ours.
"""

from __future__ import annotations

import errno

from fuservice.errors import LocalProtocolError, NoHelloError, PeerGoneError, RefusalError, RemoteProtocolError
from fuservice.proto import layouts
from fuservice.proto import messages as m
from fuservice.proto.dialects import CURRENT, Dialect
from fuservice.proto.states import BEFORE_MOUNT, ONCE, State, step


class Connection:
    """What both ends share: the state, and which once-only commands have succeeded."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.state = State.CONNECTED
        self.done: set[type[m.Message]] = set()

    def advance(self, kind: type[m.Message]) -> None:
        """Take the step of *kind*; LocalProtocolError where the table has none."""
        following = step(self.state, kind)
        if following is None:
            raise LocalProtocolError(f"{kind.__name__} in state {self.state.name}")
        self.state = following
        self.done.add(kind)


class HelperConnection(Connection):
    """The helper's end. Order: hello, receive_hello, give(argv), give(fusedev), then receive and answer in turn."""

    def __init__(self, subtype: str, dialect: Dialect = CURRENT) -> None:
        super().__init__(dialect)
        self._subtype = subtype  # only for the sentence of a silent server
        #: The command that waits for its answer: the message, or only its class where it could not be read.
        self.pending: m.Message | type[m.Message] | None = None
        self._packets = self._bytes = 0

    def hello(self, flags: int) -> bytes:
        """Return the packet that opens the conversation; *flags* are ``layouts.CAN_…``."""
        self.advance(m.Hello)
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
        self.advance(m.HelloReply)

    def give(self, name: bytes) -> bytes:
        """Return the packet that carries the file *name* (argv, then fusedev); its descriptor goes with it."""
        self.advance(m.File)
        return m.File(0, name).encode()

    def receive(self, packet: bytes) -> m.Message:
        """Return the command in *packet* (b"" is end of file).

        RefusalError: a known command that we will not carry out: send what :meth:`answer` makes of its errno, go on.
        RemoteProtocolError: not the protocol, or too much of it: end the conversation.
        """
        if self.pending is not None:
            raise LocalProtocolError(f"{self.pending} was not answered")
        kind = self._recognize(packet)
        self.pending = kind  # so that even a command we cannot read has an answer of the right form
        command = self.pending = kind.decode(packet)
        command.check()
        self._judge_order(command)
        if isinstance(command, m.Goodbye):
            self.pending = None  # a good goodbye has no answer
            self.advance(command.role)
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
        pending, self.pending = self.pending, None
        if pending is None:
            raise LocalProtocolError("there is no command to answer")
        if error == 0:
            self.advance(pending.role)
        if not pending.asks_for_file:
            return m.Reply(error).encode()
        # libfuse's helper, too, says "?" for a path that it could not read.
        return m.File(error, pending.path if isinstance(pending, m.Open) else b"?").encode()
