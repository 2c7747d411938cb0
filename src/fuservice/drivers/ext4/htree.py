"""The hash index of a directory: which of its blocks can hold a name.

Logical block 0 is the index's root, disguised as "." and a long ".."; nodes of the index are disguised as one unused
entry. Each has entries (hash, logical block) in order; names of the same hash that need more than one block are marked
by the lowest bit of the next entry's hash. Source: the kernel's Documentation/filesystems/ext4/directory.rst.

A look-up goes down as many levels as the root announces, at most three, and follows a bounded number of blocks of equal
hashes, so no arrangement of an index makes it long. Whatever the index says that cannot be is EIO here: the caller then
does without it.
"""

from __future__ import annotations

from struct import Struct

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.dirhash import TEA, dirhash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.drivers.ext4.superblock import Superblock

_ROOT_INFO: Final = Struct("<IBBBB")  # dx_root_info: reserved, hash_version, info_length, indirect_levels, flags
_ROOT_INFO_AT: Final = 24  # behind "." and ".."
_NODE_AT: Final = 8  # behind the unused entry
_LIMITS: Final = Struct("<HH")  # dx_countlimit, in the place of the first entry's hash
_ENTRY: Final = Struct("<II")  # hash, block
_BLOCK_MASK: Final = 0x0FFFFFFF
UNSIGNED_HASH: Final = 0x2  # s_flags
#: Blocks of names with one and the same hash, at most: some ten thousand names.
MOST_LEAVES: Final = 200


def hash_version(root: bytes) -> int:
    """Return which hash the index with this *root* is sorted by, as it says itself."""
    version: int = _ROOT_INFO.unpack_from(root, _ROOT_INFO_AT)[1]
    return version


def leaves(read: Callable[[int], bytes], superblock: Superblock, name: bytes) -> list[int]:
    """Return the logical blocks that can hold *name*, of the directory whose blocks *read* gives; EIO: a bad index."""
    root = read(0)
    reserved, version, length, levels, flags = _ROOT_INFO.unpack_from(root, _ROOT_INFO_AT)
    deepest = 2 if superblock.incompat & features.LARGEDIR else 1
    if reserved or version > TEA or length != _ROOT_INFO.size or levels > deepest or flags & 1:
        raise damaged(f"bad root of the hash index: version {version}, length {length}, {levels} levels, flags {flags}")
    wanted, _minor = dirhash(name, version, superblock.hash_seed, signed=not superblock.flags & UNSIGNED_HASH)
    found: list[int] = []
    _descend(read, root, _ROOT_INFO_AT + length, levels, wanted, found)
    return found


def _descend(read: Callable[[int], bytes], node: bytes, base: int, levels: int, wanted: int, found: list[int]) -> None:
    """Add to *found* the leaves below *node*, whose entries begin at byte *base*, that can hold the hash *wanted*."""
    limit, count = _LIMITS.unpack_from(node, base)
    if not 0 < count <= limit <= (len(node) - base) // _ENTRY.size:
        raise damaged(f"bad node of the hash index: {count} entries of {limit}")
    at = _last_not_above(node, base, count, wanted)
    while True:
        block = _ENTRY.unpack_from(node, base + at * _ENTRY.size)[1] & _BLOCK_MASK
        if levels:
            _descend(read, read(block), _NODE_AT, levels - 1, wanted, found)
        elif len(found) < MOST_LEAVES:
            found.append(block)
        else:
            raise damaged(f"the hash index has more than {MOST_LEAVES} blocks for one hash")
        at += 1
        if at == count or _ENTRY.unpack_from(node, base + at * _ENTRY.size)[0] & ~1 != wanted:
            return


def _last_not_above(node: bytes, base: int, count: int, wanted: int) -> int:
    """Return the number of the last entry whose hash is at most *wanted*; the first one's is as low as can be."""
    low, high = 1, count
    while low < high:
        middle = low + high >> 1
        if _ENTRY.unpack_from(node, base + middle * _ENTRY.size)[0] > wanted:
            high = middle
        else:
            low = middle + 1
    return low - 1
