"""The blocks that describe other blocks: read through one bounded cache, and only if the filesystem has them.

Every metadata block that any module parses comes from :meth:`Metadata.block`; one that carries a checksum comes from
:meth:`Metadata.sound_block`, which verifies it, once for as long as the block is remembered.
"""

from __future__ import annotations

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.caches import Generations
from fuservice.drivers.ext4.checksums import Checksums
from fuservice.drivers.ext4.superblock import POSITION, out_of_range, read_superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.drivers.ext4.device import Device
    from fuservice.drivers.ext4.extents import ExtentNode
    from fuservice.drivers.ext4.inodes import Inode

#: Sentences about damage that are kept for whoever asks; there is no end to what an image can have.
MOST_COMPLAINTS: Final = 100
#: What one entry of a parsed node costs in Python objects, in bytes: measured, rounded up.
_NODE_ENTRY_COST: Final = 128


class Metadata:
    """The device, its superblock, and the caches of raw blocks and parsed extent nodes.

    ``checksums`` verifies; None where the filesystem has none, or where ``checks`` says that nobody wants them looked at.

    ``complaints`` collects one line for each damage that was met and did not become an error of its own.
    """

    __slots__ = ("blocks", "checks", "checksums", "complaints", "device", "nodes", "remade", "superblock", "tell")

    def __init__(self, device: Device, cache_bytes: int, *, check: bool = True, position: int = POSITION) -> None:
        """Read the superblock (ImageError if it cannot be served); the caches keep at most about *cache_bytes*.

        *check*: verify checksums. *position*: of the superblock.
        """
        self.device = device
        self.superblock = read_superblock(device, check=check, position=position)
        self.checks = check
        has_checksums = check and self.superblock.ro_compat & features.METADATA_CSUM
        self.checksums = Checksums(self.superblock) if has_checksums else None
        # Two caches of two generations each: a limit is a quarter of what may be kept.
        self.blocks: Generations[int, bytes] = Generations(cache_bytes // 4, len)
        self.nodes: Generations[int, ExtentNode] = Generations(cache_bytes // 4 // _NODE_ENTRY_COST, len)
        self.remade: dict[int, ExtentNode] = {}  # inode: its whole map, where a replay has made it anew
        self.complaints: list[str] = []
        self.tell: Callable[[str], None] | None = None  # takes what is noted, from when there is a log on

    def block(self, number: int) -> bytes:
        """Return block *number*; EIO where the filesystem has no such block."""
        data = self.blocks.get(number)
        if data is None:
            data = self._read(number)
            self.blocks.put(number, data)
        return data

    def sound_block(
        self, number: int, verify: Callable[[Checksums, Inode, int, bytes], bool], inode: Inode
    ) -> bytes | None:
        """Return block *number*, a structure of *inode* that *verify* finds to be sound; None where it does not.

        *verify* is a method of :class:`Checksums`, and asked when the block is read, not while it is remembered.
        """
        if self.checksums is None:
            return self.block(number)
        key = ~number  # the same block in another part, where nobody has verified it, is another entry
        data = self.blocks.get(key)
        if data is None:
            data = self._read(number)
            if not verify(self.checksums, inode, number, data):
                return None
            self.blocks.put(key, data)
        return data

    def _read(self, number: int) -> bytes:
        superblock = self.superblock
        if not 0 <= number < superblock.blocks_count:
            raise out_of_range(number)
        return self.device.read(number << superblock.shift, superblock.block_size)

    def complain(self, what: str) -> None:
        """Note damage that the caller lives with."""
        if len(self.complaints) < MOST_COMPLAINTS and what not in self.complaints:
            self.complaints.append(what)

    def note(self, what: str) -> None:
        """Note damage that no answer will tell of: a line for the log, once."""
        known = len(self.complaints)
        self.complain(what)
        if self.tell and len(self.complaints) > known:
            self.tell(what)
