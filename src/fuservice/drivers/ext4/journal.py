"""The journal (jbd2): what it would write if it were replayed, found as the kernel finds it.

A ring of blocks. A transaction is descriptor blocks, each followed by the blocks that its tags name, and revoke blocks,
which forbid older contents; a commit block ends it. The log ends where no block with the awaited number follows. All its
numbers are big-endian. Source: the kernel's Documentation/filesystems/ext4/journal.rst; where the end is, and which wrong
checksum is an end and which is damage, as its fs/jbd2/recovery.c decides.

The ring is read once around at most. What is kept is one number for each block that would be written: :class:`Overlay`.
"""

from __future__ import annotations

from binascii import crc32
from struct import Struct

from fuservice.drivers.ext4 import fastcommit, features
from fuservice.drivers.ext4.crc32c import crc32c
from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.data import find
from fuservice.drivers.ext4.overlay import JOURNAL_MAGIC, Overlay
from fuservice.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, TypeAlias

    from fuservice.drivers.ext4.device import Device
    from fuservice.drivers.ext4.fastcommit import FastTag
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.metadata import Metadata
    from fuservice.drivers.ext4.volume import Volume

    #: Block to be written, block of the journal (logical), escaped, checksum.
    Tag: TypeAlias = tuple[int, int, bool, int]

_HEADER: Final = Struct(">4sII")  # h_magic, h_blocktype, h_sequence
_DESCRIPTOR, _COMMIT, _SUPERBLOCK_1, _SUPERBLOCK_2, _REVOKE = 1, 2, 3, 4, 5
_FIELDS: Final = Struct(">5I4xIII16s")  # 0x0c: s_blocksize, s_maxlen, s_first, s_sequence, s_start; features; s_uuid
_FAST_BLOCKS: Final = Struct(">I")  # 0x54: s_num_fc_blks
_SUPERBLOCK_SIZE, _CHECKSUM_AT = 1024, 0xFC

_CHECKSUM: Final = 0x1  # the only compatible feature
_BITS_64, _ASYNC, _CSUM_2, _CSUM_3, _FAST_COMMIT = 0x2, 0x4, 0x8, 0x10, 0x20  # incompatible ones
_KNOWN: Final = 0x3F  # with 0x1, revoke

_TAG: Final = Struct(">IHH")  # t_blocknr, t_checksum, t_flags
_WORD: Final = Struct(">I")
_ESCAPE, _SAME_UUID, _LAST_TAG = 1, 2, 8
_COMMIT_CHECKSUM: Final = Struct(">BBxxI")  # at 0x0c: h_chksum_type, h_chksum_size, h_chksum[0]
_COMMIT_TIME: Final = Struct(">Q")  # at 0x30
_REVOKED: Final = Struct(">I")  # at 0x0c: r_count, bytes in use
_CRC32: Final = (1, 4)  # type and size of the checksum of a whole transaction

#: Blocks that a log may write, and those that it may forbid: more than the journal of a gibibyte holds, which is mke2fs' largest.
MOST_TAGS: Final = 400_000
MOST_REVOKED: Final = 1_000_000
_FAST_DEFAULT, _FEWEST_BLOCKS = 256, 1024
_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Transaction:
    """What one transaction would write, in order, and which blocks it forbids older ones to write."""

    __slots__ = ("revoked", "sequence", "tags")

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.tags: list[Tag] = []
        self.revoked: list[int] = []


class Journal:
    """The journal that is the data of *inode*; OSError where it cannot be replayed.

    ``sequence`` is the number of its first transaction, and behind :meth:`contents` that of the one that would follow.
    """

    __slots__ = (
        "_at",
        "_compat",
        "_end",
        "_first",
        "_incompat",
        "_inode",
        "_last",
        "_left",
        "_metadata",
        "_revoked_left",
        "_seed",
        "_tags_left",
        "sequence",
    )

    def __init__(self, metadata: Metadata, inode: Inode) -> None:
        self._metadata, self._inode = metadata, inode
        data = self._block(0)
        magic, kind, _sequence = _HEADER.unpack_from(data)
        if magic != JOURNAL_MAGIC or kind not in (_SUPERBLOCK_1, _SUPERBLOCK_2):
            raise damaged("it has no superblock")
        size, length, self._first, self.sequence, self._at, self._compat, self._incompat, ro_compat, uuid = (
            _FIELDS.unpack_from(data, _HEADER.size)
        )
        if kind == _SUPERBLOCK_1:
            self._compat = self._incompat = ro_compat = 0
        if (
            size != metadata.superblock.block_size
            or not 0 < self._first < length <= inode.size >> metadata.superblock.shift
        ):
            raise damaged(f"its superblock says {length} blocks of {size} bytes, the first of them {self._first}")
        if self._incompat & ~_KNOWN or ro_compat or (self._incompat & _CSUM_2 and self._incompat & _CSUM_3):
            raise damaged(f"it has unknown features (0x{self._incompat:x}, 0x{ro_compat:x})")
        self._seed = crc32c(0xFFFFFFFF, uuid)
        if self._checked and not _is_right(0xFFFFFFFF, data[:_SUPERBLOCK_SIZE], _CHECKSUM_AT):
            raise damaged("the checksum of its superblock is wrong")
        self._end = length
        if self._incompat & _FAST_COMMIT:
            kept = _FAST_BLOCKS.unpack_from(data, 0x54)[0] or _FAST_DEFAULT
            self._end -= kept if length - kept >= _FEWEST_BLOCKS else 0
        if self._at and not self._first <= self._at < self._end:
            raise damaged(f"it would begin at block {self._at} of {self._end}")
        self._left = self._end - self._first  # blocks not yet passed
        self._tags_left, self._revoked_left = MOST_TAGS, MOST_REVOKED

    @property
    def dirty(self) -> bool:
        """Say whether there is a log."""
        return bool(self._at)

    @property
    def _checked(self) -> bool:
        """Say whether each block has a checksum."""
        return bool(self._incompat & (_CSUM_2 | _CSUM_3))

    def _place(self, logical: int) -> int:
        start, _end, target = find(self._metadata, self._inode, logical)
        if not target:
            raise damaged(f"its block {logical} is a hole")
        return target + logical - start

    def _block(self, logical: int) -> bytes:
        superblock = self._metadata.superblock
        return self._metadata.device.read(self._place(logical) << superblock.shift, superblock.block_size)

    def _pass(self) -> int:
        """Return the number of the next block of the ring, and go on behind it."""
        self._left -= 1
        if self._left < 0:
            raise damaged("its log is longer than the journal")
        at: int = self._at
        self._at = at + 1 if at + 1 < self._end else self._first
        return at

    def contents(self) -> dict[int, int]:
        """Return the blocks that a replay would write, as :class:`Overlay` takes them."""
        transactions = list(self._transactions())
        revoked = {block: one.sequence for one in transactions for block in one.revoked}  # the last one counts
        blocks: dict[int, int] = {}
        for one in transactions:
            for block, logical, escaped, checksum in one.tags:
                if block in revoked and (revoked[block] - one.sequence) & 0xFFFFFFFF < 1 << 31:
                    continue
                if not 0 <= block < self._metadata.superblock.blocks_count:
                    raise damaged(f"it would write block {block}, outside the filesystem")
                if self._checked:
                    self._verify(one.sequence, logical, checksum)
                place = self._place(logical)
                blocks[block] = ~place if escaped else place
        return blocks

    def _verify(self, sequence: int, logical: int, checksum: int) -> None:
        found = crc32c(self._seed, _WORD.pack(sequence) + self._block(logical))
        if checksum != (found if self._incompat & _CSUM_3 else found & 0xFFFF):
            raise damaged(f"the checksum of its block {logical}, in transaction {sequence}, is wrong")

    def _transactions(self) -> Iterator[Transaction]:
        """Yield the transactions that are complete, in order."""
        one, doubtful, last_time, whole = Transaction(self.sequence), False, 0, 0xFFFFFFFF
        while self._left > 0:
            data = self._block(self._pass())
            magic, kind, sequence = _HEADER.unpack_from(data)
            if magic != JOURNAL_MAGIC or sequence != one.sequence or kind not in (_DESCRIPTOR, _COMMIT, _REVOKE):
                break
            if kind == _COMMIT:
                (time,) = _COMMIT_TIME.unpack_from(data, 0x30)
                if doubtful or not self._commits(data, whole):
                    if time < last_time or (self._incompat & _ASYNC and not doubtful):
                        break  # left from an earlier round of the ring, or not yet written completely
                    raise damaged(f"a checksum in transaction {sequence} is wrong")
                yield one
                one, last_time, whole = Transaction(sequence + 1 & 0xFFFFFFFF), time, 0xFFFFFFFF
                continue
            doubtful |= self._checked and not _is_right(self._seed, data, len(data) - 4)
            if kind == _REVOKE:
                revoked = self._revocations(data)
                one.revoked += revoked
                self._found(0, len(revoked))
            else:
                before = len(one.tags)
                whole = self._describe(one, data, whole)
                self._found(len(one.tags) - before, 0)
        self.sequence = one.sequence

    def _found(self, tags: int, revoked: int) -> None:
        """Count; EIO where it is more than anybody has written: a map can have one block in many places of the ring."""
        self._tags_left -= tags
        self._revoked_left -= revoked
        if self._tags_left < 0 or self._revoked_left < 0:
            raise damaged(f"its log has more than {MOST_TAGS} blocks, or forbids more than {MOST_REVOKED}")

    def _describe(self, one: Transaction, data: bytes, whole: int) -> int:
        """Add the tags of a descriptor block to *one*; return *whole*, the transaction's checksum, with all these blocks."""
        tags = [(block, self._pass(), escaped, checksum) for block, escaped, checksum in self._tags(data)]
        one.tags += tags
        if not self._compat & _CHECKSUM:
            return whole
        whole = _mirrored_crc32(whole, data)
        for _block, logical, _escaped, _checksum in tags:
            whole = _mirrored_crc32(whole, self._block(logical))
        return whole

    def _tags(self, data: bytes) -> Iterator[tuple[int, bool, int]]:
        """Yield (block, escaped, checksum) of a descriptor block's tags."""
        wide = self._incompat & _BITS_64
        size = 16 if self._incompat & _CSUM_3 else (12 if wide else 8) + (2 if self._incompat & _CSUM_2 else 0)
        at, end = _HEADER.size, len(data) - (4 if self._checked else 0)
        while at + size <= end:
            block, checksum, flags = _TAG.unpack_from(data, at)
            if wide:
                block |= _WORD.unpack_from(data, at + 8)[0] << 32
            if self._incompat & _CSUM_3:
                (checksum,) = _WORD.unpack_from(data, at + 12)
            yield block, bool(flags & _ESCAPE), checksum
            at += size if flags & _SAME_UUID else size + 16
            if flags & _LAST_TAG:
                return

    def _revocations(self, data: bytes) -> list[int]:
        """Return the blocks that a revoke block names."""
        (used,) = _REVOKED.unpack_from(data, _HEADER.size)
        if used > len(data) - (4 if self._checked else 0):
            raise damaged(f"a revoke block of {used} bytes")
        words = Struct(">Q" if self._incompat & _BITS_64 else ">I")
        start = _HEADER.size + _REVOKED.size
        count = max(0, used - start) // words.size
        return [block for (block,) in words.iter_unpack(data[start : start + count * words.size])]

    def _commits(self, data: bytes, whole: int) -> bool:
        """Say whether the checksums of a commit block are right; *whole* is that of its transaction."""
        kind, size, stored = _COMMIT_CHECKSUM.unpack_from(data, _HEADER.size)
        if self._compat & _CHECKSUM and (kind, size, stored) != (0, 0, 0):
            return (kind, size) == _CRC32 and stored == _mirror(whole)
        return not self._checked or _is_right(self._seed, data, 0x10)

    def fast_blocks(self) -> Iterator[bytes]:
        """Yield the blocks of the area for fast commits, which lies behind the ring."""
        if self._incompat & _FAST_COMMIT:
            for logical in range(self._end + 1, self._inode.size >> self._metadata.superblock.shift):
                yield self._block(logical)


def _is_right(seed: int, data: bytes, at: int) -> bool:
    """Say whether the word at *at* is the checksum of *data* with zeros in its place."""
    return bool(_WORD.unpack_from(data, at)[0] == crc32c(seed, data[:at] + b"\0\0\0\0" + data[at + 4 :]))


def _mirrored_crc32(register: int, data: bytes) -> int:
    """Return CRC-32 with the highest bit of each byte first, and nothing inverted; *register* is kept mirrored."""
    return crc32(data.translate(_MIRRORED), register ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _mirror(register: int) -> int:
    return int.from_bytes(register.to_bytes(4, "big").translate(_MIRRORED), "little")


def recovered(volume: Volume) -> tuple[Device, list[FastTag], int]:
    """Return the device of *volume* as it would be after a replay, the fast commits to be replayed there, and how many blocks differ.

    ImageError where the journal cannot be replayed.
    """
    superblock, device = volume.superblock, volume.metadata.device
    if not superblock.compat & features.HAS_JOURNAL or not superblock.journal_inum:
        raise ImageError("-o recover: the journal is not in the image: leave recover out to see what is on the disk")
    try:
        journal = Journal(volume.metadata, volume.any_inode(superblock.journal_inum))
        if not journal.dirty:
            return device, [], 0
        blocks = journal.contents()
        tags = fastcommit.scan(journal.fast_blocks(), journal.sequence)
        return Overlay(device, superblock.shift, blocks), tags, len(blocks)
    except OSError as error:
        raise ImageError(
            f"-o recover: the journal cannot be replayed: {error.strerror} (leave recover out to see what is on the disk)"
        ) from error
