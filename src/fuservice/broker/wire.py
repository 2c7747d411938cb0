"""The wire between a caller and the broker: each message as data, judged whole before anything acts on it. No I/O.

Specified in docs/broker.md. What is wrong with a packet is a ``RefusalError``, whose sentence the peer gets.
"""

from __future__ import annotations

import errno
import struct

from fuservice.errors import RefusalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, TypeAlias

    Pairs: TypeAlias = Sequence[tuple[str, str | None]]

#: Where the broker listens.
SOCKET: Final = "/run/fuservice/broker"
VERSION: Final = 1

LARGEST: Final = 4_096  # bytes of a packet
MOST_PAIRS: Final = 16
LONGEST_TEXT: Final = 255  # bytes: fsconfig(2) takes 256 with the NUL
_NONE: Final = 0xFFFF  # the length that says: no value
_TEXT: Final = struct.Struct(">H")

_MOUNT: Final = struct.Struct(">4sHHI")  # magic, version, number of pairs, mount(2) flags
_UNMOUNT: Final = struct.Struct(">4sHHQ")  # magic, version, padding, mount id
_ANSWER: Final = struct.Struct(">4sIQ")  # magic, errno, mount id; a sentence follows
MOUNT, UNMOUNT, ANSWER, CHALLENGE, PROOF = b"MONT", b"UMNT", b"DONE", b"PROV", b"PROF"


class Mount:
    """Caller → broker, with two descriptors, a fuse device and a mount point: mount the one on the other."""

    descriptors = 2

    def __init__(self, source: str, subtype: str, flags: int, pairs: Pairs) -> None:
        """*flags* are mount(2)'s; *pairs* are options for the kernel's fuse, name and value, or None for one without."""
        self.source, self.subtype, self.flags, self.pairs = source, subtype, flags, pairs

    def encode(self) -> bytes:
        """Return the packet. RefusalError(EINVAL) where a text is too long for it, or there are too many pairs."""
        if len(self.pairs) > MOST_PAIRS:
            raise RefusalError(errno.EINVAL, f"{len(self.pairs)} mount options: a broker takes {MOST_PAIRS}")
        texts = [self.source, self.subtype, *(word for pair in self.pairs for word in pair)]
        head = _MOUNT.pack(MOUNT, VERSION, len(self.pairs), self.flags)
        return head + b"".join(map(_encoded, texts))


class Unmount:
    """Caller → broker, with one descriptor, of a mount's root: unmount it, if it is the mount with this id."""

    descriptors = 1

    def __init__(self, mount_id: int) -> None:
        """*mount_id*: the one that is never used twice (Linux 6.8), and before that mountinfo's."""
        self.mount_id = mount_id

    def encode(self) -> bytes:
        """Return the packet."""
        return _UNMOUNT.pack(UNMOUNT, VERSION, 0, self.mount_id)


class Answer:
    """Broker → caller: 0 and mountinfo's id of the mount, or an errno and a sentence. The connection ends with it."""

    def __init__(self, error: int = 0, mount_id: int = 0, sentence: str = "") -> None:
        self.error, self.mount_id, self.sentence = error, mount_id, sentence

    def encode(self) -> bytes:
        """Return the packet; a sentence that is too long is cut."""
        sentence = self.sentence.encode("utf-8", "backslashreplace")
        return (_ANSWER.pack(ANSWER, self.error, self.mount_id) + sentence)[:LARGEST]


class Challenge:
    """Broker → caller: prove that you may write there: make a directory of this name in it, and show it."""

    def __init__(self, word: str) -> None:
        self.word = word

    def encode(self) -> bytes:
        """Return the packet."""
        return CHALLENGE + self.word.encode()


def request(packet: bytes) -> Mount | Unmount:
    """Return the request in *packet*; RefusalError(EPROTO) where it is none, or of another version."""
    magic, version = packet[:4], packet[4:6]
    if magic not in (MOUNT, UNMOUNT):
        raise _wrong(f"a request begins with {MOUNT.decode()} or {UNMOUNT.decode()}, not with {magic!r}")
    if version != _TEXT.pack(VERSION):
        raise _wrong(f"this broker speaks version {VERSION}, the request is of version {int.from_bytes(version)}")
    if len(packet) > LARGEST:
        raise _wrong(f"a request has at most {LARGEST} bytes")
    return _mount(packet) if magic == MOUNT else _unmount(packet)


def _unmount(packet: bytes) -> Unmount:
    if len(packet) != _UNMOUNT.size:
        raise _wrong(f"a request to unmount has {_UNMOUNT.size} bytes, not {len(packet)}")
    _, _, padding, mount_id = _UNMOUNT.unpack(packet)
    if padding:
        raise _wrong("the padding is not zero")
    return Unmount(mount_id)


def _mount(packet: bytes) -> Mount:
    if len(packet) < _MOUNT.size:
        raise _wrong(f"a request to mount has at least {_MOUNT.size} bytes, not {len(packet)}")
    _, _, count, flags = _MOUNT.unpack_from(packet)
    if count > MOST_PAIRS:
        raise _wrong(f"{count} options: at most {MOST_PAIRS} are taken")
    texts, place = [], _MOUNT.size
    for _ in range(2 + 2 * count):
        text, place = _decoded(packet, place)
        texts.append(text)
    if place != len(packet):
        raise _wrong(f"{len(packet) - place} bytes follow the last option")
    source, subtype, *words = texts
    names, values = words[::2], words[1::2]
    if source is None or subtype is None or None in names:
        raise _wrong("source, subtype and names of options cannot be absent")
    return Mount(source, subtype, flags, list(zip(map(str, names), values, strict=True)))


def answer(packet: bytes) -> Answer | Challenge:
    """Return what the broker said in *packet*; RefusalError(EPROTO) where it said nothing that we know."""
    if packet[:4] == CHALLENGE and 0 < len(packet) - 4 <= LONGEST_TEXT:
        return Challenge(packet[4:].decode("utf-8", "backslashreplace"))
    if packet[:4] != ANSWER or len(packet) < _ANSWER.size:
        raise _wrong(f"the broker's answer is none: {packet[:16]!r}")
    _, error, mount_id = _ANSWER.unpack_from(packet)
    return Answer(error, mount_id, packet[_ANSWER.size :].decode("utf-8", "backslashreplace"))


def _encoded(text: str | None) -> bytes:
    if text is None:
        return _TEXT.pack(_NONE)
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > LONGEST_TEXT:
        raise RefusalError(errno.EINVAL, f"{text[:40]}…: {len(raw)} bytes, a broker takes {LONGEST_TEXT}")
    return _TEXT.pack(len(raw)) + raw


def _decoded(packet: bytes, place: int) -> tuple[str | None, int]:
    """Return the text at *place*, and where the next one begins."""
    if len(packet) < place + _TEXT.size:
        raise _wrong("it ends before its last text")
    (length,) = _TEXT.unpack_from(packet, place)
    place += _TEXT.size
    if length == _NONE:
        return None, place
    raw = packet[place : place + length]
    if length > LONGEST_TEXT or len(raw) != length:
        raise _wrong(f"a text of {length} bytes, where {len(raw)} follow and {LONGEST_TEXT} are the most")
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        raise _wrong("a text with control characters")
    return raw.decode("utf-8", "surrogateescape"), place + length


def _wrong(what: str) -> RefusalError:
    return RefusalError(errno.EPROTO, f"malformed: {what}")
