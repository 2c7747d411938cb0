"""The blocks that describe other blocks: read through one bounded cache, and only if the filesystem has them.

Every metadata block that any module parses comes from :meth:`Metadata.block`; it is the place where counting and, later,
verification belong. (Checksums are not verified yet: what a block says is checked for sense where it is parsed.)
"""

from __future__ import annotations

from fuservice.drivers.ext4.caches import Generations
from fuservice.drivers.ext4.superblock import out_of_range, read_superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.device import Device
    from fuservice.drivers.ext4.extents import ExtentNode

#: Sentences about damage that are kept for whoever asks; there is no end to what an image can have.
MOST_COMPLAINTS: Final = 100
#: What one entry of a parsed node costs in Python objects, in bytes: measured, rounded up.
_NODE_ENTRY_COST: Final = 128


class Metadata:
    """The device, its superblock, and the caches of raw blocks and parsed extent nodes.

    ``complaints`` collects one line for each damage that was met and did not become an error of its own.
    """

    __slots__ = ("blocks", "complaints", "device", "nodes", "superblock")

    def __init__(self, device: Device, cache_bytes: int) -> None:
        """Read the superblock (ImageError if it cannot be served); the caches keep at most about *cache_bytes*."""
        self.device = device
        self.superblock = read_superblock(device)
        # Two caches of two generations each: a limit is a quarter of what may be kept.
        self.blocks: Generations[int, bytes] = Generations(cache_bytes // 4, len)
        self.nodes: Generations[int, ExtentNode] = Generations(cache_bytes // 4 // _NODE_ENTRY_COST, len)
        self.complaints: list[str] = []

    def block(self, number: int) -> bytes:
        """Return block *number*; EIO where the filesystem has no such block."""
        data = self.blocks.get(number)
        if data is None:
            superblock = self.superblock
            if not 0 <= number < superblock.blocks_count:
                raise out_of_range(number)
            data = self.device.read(number << superblock.shift, superblock.block_size)
            self.blocks.put(number, data)
        return data

    def complain(self, what: str) -> None:
        """Note damage that the caller lives with."""
        if len(self.complaints) < MOST_COMPLAINTS and what not in self.complaints:
            self.complaints.append(what)
