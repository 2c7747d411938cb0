"""One class for each message: its layout, its fields, and the judgement of a packet that claims to be one.

``decode`` judges the form of the whole packet before anything acts on it, ``check`` what its fields mean. What they find
wrong in a known message is a ``RefusalError`` (EINVAL): on the helper's side that is the answer, which names the file asked
for once the form is right; on the service's side ``Connection`` ends the conversation.
The sentences are those of libfuse's helper where it has one.
"""

from __future__ import annotations

import errno
import struct

from fuservice.errors import RefusalError
from fuservice.proto import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Self, dataclass_transform
else:

    def dataclass_transform():  # noqa: ANN201  # tells type checkers that a message is made of its annotated fields
        return lambda cls: cls


@dataclass_transform()
class Message:
    """A message is its fixed fields, in wire order, and for some one trailing NUL-terminated string (``text``).

    The annotated attributes of a class are its fields, in the order in which they are given to make one.
    """

    fields: ClassVar[tuple[str, ...]]
    role: ClassVar[type[Message]]  # which one it is in the table of states: another dialect's class plays the same role
    magic: ClassVar[int]
    layout: ClassVar[struct.Struct]  # the magic and the fixed fields
    fixed: ClassVar[tuple[str, ...]] = ()  # names of the fixed fields; "padding" must be zero and is not kept
    text: ClassVar[str] = ""  # name of the trailing string, if it has one
    title: ClassVar[str]  # as libfuse's sentences call it
    lenient: ClassVar[bool] = False  # the draft's strings may lack their NUL
    asks_for_file: ClassVar[bool] = False  # answered by a File, not a Reply

    def __init_subclass__(cls) -> None:
        if "role" not in cls.__dict__:
            cls.role = cls
        if "__annotations__" in cls.__dict__:
            cls.fields = tuple(name for name, hint in cls.__annotations__.items() if not hint.startswith("ClassVar"))

    def __init__(self, *values: int | bytes, **named: int | bytes) -> None:
        vars(self).update(zip(self.fields, values, strict=False), **named)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.fields)})"

    def _values(self) -> tuple[int | bytes, ...]:
        numbers = tuple(0 if name == "padding" else getattr(self, name) for name in self.fixed)
        return (*numbers, getattr(self, self.text)) if self.text else numbers

    def encode(self) -> bytes:
        """Return the packet. ValueError where a field does not fit: our own bug."""
        values = self._values()
        if not self.text:
            return self.layout.pack(self.magic, *values)
        *numbers, text = values
        if not isinstance(text, bytes) or not text or b"\0" in text:
            raise ValueError(f"{self.title}: {self.text} must be bytes, not empty, without NUL: {text!r}")
        packet = self.layout.pack(self.magic, *numbers) + text + b"\0"
        if len(packet) > layouts.LARGEST_PACKET:
            raise ValueError(f"{self.title}: {len(packet)} bytes, at most {layouts.LARGEST_PACKET} fit in a packet")
        return packet

    @classmethod
    def decode(cls, packet: bytes) -> Self:
        """Return the message in *packet*, whose magic is known to be ours; RefusalError(EINVAL) where it is malformed."""
        cls._check_size(len(packet))
        numbers = cls.layout.unpack_from(packet)[1:]
        for name, value in zip(cls.fixed, numbers, strict=True):
            if name == "padding" and value:
                raise RefusalError(errno.EINVAL, "nonzero value in padding field")
        fields = dict(zip(cls.fixed, numbers, strict=True))
        fields.pop("padding", None)
        if cls.text:
            fields[cls.text] = cls._string(packet[cls.layout.size :])
        return cls(**fields)

    @classmethod
    def _check_size(cls, size: int) -> None:
        if not cls.text and size != cls.layout.size:
            raise RefusalError(errno.EINVAL, f"{cls.title} wrong size {size}, expected {cls.layout.size}")
        if cls.text and size < cls.layout.size + (1 if cls.lenient else 2):  # one character and its NUL
            raise RefusalError(errno.EINVAL, f"{cls.title} too small")

    @classmethod
    def _string(cls, raw: bytes) -> bytes:
        if cls.lenient and raw[-1:] != b"\0":
            raw += b"\0"
        if raw == b"\0":  # where the NUL may be missing, the size does not say so
            raise RefusalError(errno.EINVAL, f"{cls.title} too small")
        if raw[-1:] != b"\0":
            raise RefusalError(errno.EINVAL, f"{cls.title} must be null terminated")
        if (end := raw.index(b"\0")) != len(raw) - 1:
            raise RefusalError(errno.EINVAL, f"{cls.title} has a NUL at byte {end} of a string of {len(raw)} bytes")
        return raw[:-1]

    def check(self) -> None:
        """Judge the fields of what was read; RefusalError(EINVAL) where one has no meaning."""


class Hello(Message):
    """Helper → service: the versions it speaks, and what it could do if asked (``layouts.CAN_…``)."""

    magic, layout, title = layouts.magic("SAFT"), struct.Struct(">IHHI"), "hello command"
    fixed: ClassVar[tuple[str, ...]] = ("oldest", "newest", "flags")

    oldest: int
    newest: int
    flags: int = 0


class HelloReply(Message):
    """Service → helper: the version that it chose."""

    magic, layout, title = layouts.magic("LAST"), struct.Struct(">IHH"), "hello reply"
    fixed: ClassVar[tuple[str, ...]] = ("version", "padding")

    version: int


class File(Message):
    """Helper → service: a file by name, with its descriptor attached if ``error`` (an errno) is 0."""

    magic, layout, title = layouts.magic("FILE"), struct.Struct(">II"), "service file reply"
    fixed, text = ("error",), "path"

    error: int
    path: bytes


class Open(Message):
    """Service → helper: open ``path``, one of the files granted to it. ``flags`` are open(2)'s."""

    magic, layout, title = layouts.magic("OPEN"), struct.Struct(">IIIII"), "open command"
    fixed: ClassVar[tuple[str, ...]] = ("flags", "mode", "request", "block_size")
    text, asks_for_file = "path", True

    path: bytes
    flags: int
    mode: int = 0
    request: int = 0
    block_size: int = 0

    @property
    def quiet(self) -> bool:
        """Whether the caller should not be told of a refusal."""
        return bool(self.request & layouts.REQUEST_QUIET)

    def check(self) -> None:
        if self.request & ~layouts.REQUEST_QUIET:
            raise RefusalError(errno.EINVAL, f"open flags {self.request:#x} not recognized")


class OpenBlockDevice(Open):
    """Service → helper: the same, and it must be a block device; ``block_size`` ≠ 0 sets the device's block size (bytes)."""

    magic = layouts.magic("BDEV")


class SetType(Message):
    """Service → helper: begin a mount, of fuse or (``layouts.TYPE_FUSEBLK``) fuseblk."""

    magic, layout, title = layouts.magic("TYPE"), struct.Struct(">II"), "fsopen command"
    fixed: ClassVar[tuple[str, ...]] = ("flags",)

    flags: int = 0

    def check(self) -> None:
        if self.flags & ~layouts.TYPE_FUSEBLK:
            raise RefusalError(errno.EINVAL, f"unknown fsopen flags, {self.flags:#x}")


class SetSource(Message):
    """Service → helper: the source to show in mountinfo."""

    magic, layout, title, text = layouts.magic("NAME"), layouts.MAGIC, "mount source command", "source"

    source: bytes


class SetMountPoint(Message):
    """Service → helper: where, and what it must be (S_IFDIR, S_IFREG, or 0 for either)."""

    magic, layout, title = layouts.magic("MNTP"), struct.Struct(">IHH"), "mount point command"
    fixed: ClassVar[tuple[str, ...]] = ("kind", "padding")
    text = "path"

    path: bytes
    kind: int = 0


class SetOptions(Message):
    """Service → helper: options for the kernel's fuse, separated by commas."""

    magic, layout, title, text = layouts.magic("OPTS"), layouts.MAGIC, "mount options command", "options"

    options: bytes


class SetMtab(Message):
    """Service → helper: options that only /run/mount/utab shows (``user=``, ``x-…``), or ``-n`` for none."""

    magic, layout, title, text = layouts.magic("MTAB"), layouts.MAGIC, "mtab options command", "options"

    options: bytes


class Mount(Message):
    """Service → helper: mount now, with these mount(2) flags. It may read the fuse device only after the answer."""

    magic, layout, title = layouts.magic("DOIT"), struct.Struct(">II"), "mount command"
    fixed = ("flags",)

    flags: int


class Goodbye(Message):
    """Service → helper: I am done, and this is my exit code. The socket is shut down after it."""

    magic, layout, title = layouts.magic("BYEE"), struct.Struct(">II"), "bye command"
    fixed = ("exit_code",)

    exit_code: int


class Reply(Message):
    """Helper → service: the answer to a command, 0 or an errno."""

    magic, layout, title = layouts.magic("REPL"), struct.Struct(">II"), "service reply"
    fixed = ("error",)

    error: int = 0


HELPER_SENDS: tuple[type[Message], ...] = (Hello, File, Reply)
COMMANDS: tuple[type[Message], ...] = (
    Open, OpenBlockDevice, SetType, SetSource, SetMountPoint, SetOptions, SetMtab, Mount, Goodbye,
)  # fmt: skip
SERVICE_SENDS: tuple[type[Message], ...] = (HelloReply, *COMMANDS)
