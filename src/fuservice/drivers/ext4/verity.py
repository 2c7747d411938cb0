"""fs-verity: files whose data have a tree of hashes behind their end, so that each block that is read can be verified.

From the first multiple of 64 KiB behind the data lie the hashes of its blocks, then hashes of the blocks of hashes, and so on, those
nearest to the root first; then, from a block of its own on, the descriptor with the root's hash, whose length is the last word of the
last block. None of it is data: the file ends at ``i_size``. Source: the kernel's Documentation/filesystems/fsverity.rst and ext4.rst.

As with the kernel, data that do not fit are EIO. Whether a file is the one that somebody meant tells only its digest, which
FS_IOC_MEASURE_VERITY gives; signatures are not looked at.
"""

from __future__ import annotations

import sys
from importlib import import_module
from struct import Struct

from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.data import read_blocks
from fuservice.drivers.ext4.fiemap import allocated_runs
from fuservice.drivers.ext4.inodes import EXTENTS_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.metadata import Metadata

    class Hash(Protocol):
        """What Python's modules give."""

        def copy(self) -> Hash: ...
        def update(self, data: bytes | memoryview, /) -> None: ...
        def digest(self) -> bytes: ...


# Python's own modules for it: hashlib would load OpenSSL, 10 ms at each start and much code.
_OWN: Final = sys.version_info >= (3, 12)
_SHA256: Final = import_module("_sha2" if _OWN else "_sha256").sha256
_SHA512: Final = import_module("_sha2" if _OWN else "_sha512").sha512
#: By hash_algorithm: the function, the bytes of a digest, the bytes that it takes at once.
ALGORITHMS: Final[dict[int, tuple[Callable[[bytes], Hash], int, int]]] = {1: (_SHA256, 32, 64), 2: (_SHA512, 64, 128)}

METADATA_ALIGNMENT: Final = 1 << 16
#: version, hash_algorithm, log_blocksize, salt_size, sig_size, data_size, root_hash, salt, and zeros
_DESCRIPTOR: Final = Struct("<BBBBIQ64s32s144s")
_SIZE: Final = Struct("<I")
_LARGEST_DESCRIPTOR: Final = 16_384  # FS_VERITY_MAX_DESCRIPTOR_SIZE: with a signature
_MOST_LEVELS: Final = 8  # FS_VERITY_MAX_LEVELS
_SMALLEST_BLOCK, _LARGEST_BLOCK = 10, 16  # logarithms; the kernel's is a page's
_MOST_REMEMBERED: Final = 4096  # blocks of hashes of one file that are known to be right


class Verity:
    """The verity metadata of *inode*: EIO where there is none that can be right.

    ``algorithm`` and ``digest`` are what FS_IOC_MEASURE_VERITY tells, ``descriptor`` is the descriptor with its signature.
    """

    __slots__ = ("_block", "_digest_size", "_hash", "_inode", "_levels", "_metadata", "_right", "_root", "_tree", "algorithm", "descriptor", "digest")  # fmt: skip

    def __init__(self, metadata: Metadata, inode: Inode) -> None:
        self._metadata, self._inode = metadata, inode
        self.descriptor = _read_descriptor(metadata, inode)
        version, self.algorithm, block, salt_size, sig_size, data_size, root, salt, zeros = _DESCRIPTOR.unpack_from(
            self.descriptor
        )
        algorithm = ALGORITHMS.get(self.algorithm)
        if version != 1 or algorithm is None or salt_size > len(salt) or zeros.strip(b"\0"):
            raise damaged(f"inode {inode.ino}: a verity descriptor of version {version}, hash {self.algorithm}")
        if not _SMALLEST_BLOCK <= block <= _LARGEST_BLOCK or data_size != inode.size:
            raise damaged(f"inode {inode.ino}: a verity descriptor for {data_size} bytes in blocks of 2^{block}")
        if sig_size > len(self.descriptor) - _DESCRIPTOR.size:
            raise damaged(f"inode {inode.ino}: a verity descriptor with a signature of {sig_size} bytes")
        function, self._digest_size, at_once = algorithm
        self._block = 1 << block
        padding = -salt_size % at_once
        self._hash = function(salt[:salt_size] + bytes(padding))
        self._root: bytes = root[: self._digest_size]
        self._tree = _behind(inode.size)
        self._levels = self._starts()
        self._right: set[tuple[int, int]] = set()
        self.digest: bytes = function(self.descriptor[:4] + bytes(4) + self.descriptor[8 : _DESCRIPTOR.size]).digest()

    def _starts(self) -> list[int]:
        """Return where in the tree each level begins, in blocks, the one with the hashes of data first."""
        counts = []
        blocks = -(-self._inode.size // self._block)
        while blocks > 1:
            blocks = -(-blocks // (self._block // self._digest_size))
            counts.append(blocks)
        if len(counts) > _MOST_LEVELS:
            raise damaged(f"inode {self._inode.ino}: its hash tree would have {len(counts)} levels")
        return [sum(counts[level + 1 :]) for level in range(len(counts))]

    def _hashed(self, data: bytes | memoryview) -> bytes:
        state = self._hash.copy()
        state.update(data)
        return state.digest()

    def read(self, offset: int, into: memoryview) -> memoryview:
        """Return what :func:`read_data` returns; EIO where a block of it is not the one that was hashed."""
        size, block = self._inode.size, self._block
        length = min(len(into), size - offset)
        if length <= 0:
            return into[:0]
        first, end = offset // block, -(-(offset + length) // block)
        aligned = offset % block == 0 and (offset + length == size or length % block == 0)
        room = into if aligned else memoryview(bytearray((end - first) * block))
        whole = room[: min(end * block, size) - first * block]
        whole = read_blocks(self._metadata, self._inode, first * block, whole)
        for index in range(first, end):
            piece = whole[(index - first) * block : (index - first + 1) * block]
            data = piece if len(piece) == block else bytes(piece).ljust(block, b"\0")
            if self._hashed(data) != self._expected(0, index):
                raise damaged(f"inode {self._inode.ino}, verity block {index}: its hash is wrong")
        return whole[offset - first * block :][:length]

    def _expected(self, level: int, index: int) -> bytes:
        """Return the hash that block *index* must have, of the data (level 0) or of *level* - 1 of the tree; EIO: damage."""
        if level == len(self._levels):
            return self._root
        number, at = divmod(index, self._block // self._digest_size)
        place = self._tree + (self._levels[level] + number) * self._block
        hashes = read_blocks(self._metadata, self._inode, place, memoryview(bytearray(self._block)))
        if (level, number) not in self._right:
            if self._hashed(hashes) != self._expected(level + 1, number):
                raise damaged(
                    f"inode {self._inode.ino}, block {number} of level {level} of its hash tree: its hash is wrong"
                )
            if len(self._right) < _MOST_REMEMBERED:
                self._right.add((level, number))
        return bytes(hashes[at * self._digest_size : (at + 1) * self._digest_size])


def _behind(size: int) -> int:
    """Return where the hash tree begins."""
    return -(-size // METADATA_ALIGNMENT) * METADATA_ALIGNMENT


def _read_descriptor(metadata: Metadata, inode: Inode) -> bytes:
    """Return the descriptor, which ends with the last block that the file has."""
    begin = _behind(inode.size)
    runs = allocated_runs(metadata, inode) if inode.flags & EXTENTS_FL else ()
    last = max((behind for _start, behind, _block in runs), default=0)
    end = (last << metadata.superblock.shift) - _SIZE.size
    if end < begin + _DESCRIPTOR.size:
        raise damaged(f"inode {inode.ino}: no verity descriptor behind its end")
    (length,) = _SIZE.unpack(read_blocks(metadata, inode, end, memoryview(bytearray(_SIZE.size))))
    place = end - length & ~(metadata.superblock.block_size - 1)
    if not _DESCRIPTOR.size <= length <= _LARGEST_DESCRIPTOR or place < begin:
        raise damaged(f"inode {inode.ino}: a verity descriptor of {length} bytes")
    return bytes(read_blocks(metadata, inode, place, memoryview(bytearray(length))))
