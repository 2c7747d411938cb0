"""The image as it would be after the replay of its journal: nothing is written, and no contents are kept in memory.

For each block that the journal has anew, a number says where in the journal it lies; whoever reads the block gets it from
there. So a journal of any size costs some hundred bytes for each block that it would write.
"""

from __future__ import annotations

from fuservice.drivers.ext4.device import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: What a block in the journal begins with; a replayed block that begins so too is "escaped": the journal has zeros there.
JOURNAL_MAGIC: Final = b"\xc0\x3b\x39\x98"


class Overlay(Device):
    """*device*, in which some blocks of ``1 << shift`` bytes are read elsewhere.

    *blocks*: number of a block → number of the one that has its bytes, negative (all bits inverted) if that is escaped.
    """

    __slots__ = ("_blocks", "_shift")

    def __init__(self, device: Device, shift: int, blocks: Mapping[int, int]) -> None:
        super().__init__(device.fd, offset=device.offset, size=device.size)
        self._shift, self._blocks = shift, blocks

    def read(self, position: int, length: int) -> bytes:
        """Return exactly *length* bytes at *position*."""
        self._check(position, length)
        whole = bytearray(length)
        self.read_into(position, memoryview(whole))
        return bytes(whole)

    def read_into(self, position: int, into: memoryview) -> None:
        """Fill *into* from *position*."""
        super().read_into(position, into)
        for number in range(position >> self._shift, (position + len(into) - 1 >> self._shift) + 1):
            place = self._blocks.get(number)
            if place is not None:
                self._replace(number << self._shift, place, position, into)

    def _replace(self, start: int, place: int, position: int, into: memoryview) -> None:
        """Overwrite the part of *into*, which has the bytes from *position* on, that is the block at byte *start*."""
        first, end = max(start, position), min(start + (1 << self._shift), position + len(into))
        source = place if place >= 0 else ~place
        super().read_into((source << self._shift) + first - start, into[first - position : end - position])
        escaped = min(end, start + len(JOURNAL_MAGIC))
        if place < 0 and first < escaped:
            into[first - position : escaped - position] = JOURNAL_MAGIC[first - start : escaped - start]
