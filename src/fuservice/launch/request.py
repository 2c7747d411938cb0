"""The packets between the listener and a warm process: numbers, a name, and descriptors. Both ends are ours."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: In a warm process's arguments: code that is newer on disk than in the listener may speak otherwise.
VERSION: Final = "1"
ROOM: Final = 256  # bytes of the longest packet

# What the listener asks.
START: Final = 1  # clone a server; with it come connection, log and hand-over
TRIAL: Final = 2  # the same, but for what is served: the server ends well as soon as it is in its cage
RELOAD: Final = 3  # load the code from the disk anew
# What it is told.
READY: Final = 4  # by the warm process: the driver is imported
BORN: Final = 5  # by the server itself, whose pid the kernel adds: from now on the connection is its own
FAILED: Final = 6  # by the warm process: no server; detail is the errno

_HEAD: Final = struct.Struct("<BQI")


class Message:
    """One packet. *number* names the birth that it is about; *name* is the type, *detail* an errno."""

    __slots__ = ("detail", "kind", "name", "number")

    def __init__(self, kind: int, number: int = 0, detail: int = 0, name: str = "") -> None:
        self.kind, self.number, self.detail, self.name = kind, number, detail, name

    def pack(self) -> bytes:
        """Return the packet."""
        return _HEAD.pack(self.kind, self.number, self.detail) + self.name.encode()

    @classmethod
    def unpack(cls, data: bytes) -> Message:
        """Return what *data*, a packet that pack() made, says."""
        kind, number, detail = _HEAD.unpack_from(data)
        return cls(kind, number, detail, data[_HEAD.size :].decode())
