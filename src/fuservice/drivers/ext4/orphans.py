"""Orphans: inodes that nothing leads to any more, or that were being truncated, when the filesystem was last used.

The kernel deletes and truncates them at its next mount. Two places name them: a list that begins in the superblock and goes on
in each inode's ``i_dtime``, and the orphan file, an inode full of their numbers. Deleted ones no name leads to, so what shows
is only that their blocks count as free. Source: the kernel's Documentation/filesystems/ext4/orphan.rst, its fs/ext4/orphan.c.

The kernel sets mtime and ctime of what it truncates to the time of the mount; here they stay.
"""

from __future__ import annotations

import stat
from struct import Struct

from fuservice.drivers.ext4 import features, xattrs
from fuservice.drivers.ext4.blockmap import pointer_blocks
from fuservice.drivers.ext4.crc32c import crc32c
from fuservice.drivers.ext4.damage import damaged, wrong_checksum
from fuservice.drivers.ext4.data import find
from fuservice.drivers.ext4.extents import ExtentNode, tree_blocks
from fuservice.drivers.ext4.inodes import EA_INODE_FL, EXTENTS_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.replay import Replay
    from fuservice.drivers.ext4.volume import Volume

#: So many are looked at: the kernel has no limit, but a list that long was made by nobody.
MOST_ORPHANS: Final = 100_000
_DTIME_AT: Final = 20
_NUMBER: Final = Struct("<I")
_LONG: Final = Struct("<Q")
_TAIL: Final = Struct("<II")  # ob_magic, ob_checksum
_MAGIC: Final = 0x0B10CA04
_REFERENCES_AT: Final = (12, 36)  # of an attribute's inode: the halves of its count, i_ctime and l_i_version


def clean_up(volume: Volume, replay: Replay) -> None:
    """Do to *replay* what the kernel's mount does to the orphans of *volume*; EIO where it would refuse the filesystem."""
    if volume.superblock.errors:  # nothing is known of the list then
        return
    in_file = _in_file(volume)
    for ino in _in_list(volume):
        if not _process(volume, replay, ino):
            break
    for ino in in_file:
        _process(volume, replay, ino)


def _in_list(volume: Volume) -> Iterator[int]:
    seen: set[int] = set()
    ino = volume.superblock.last_orphan
    while ino and ino not in seen and len(seen) < MOST_ORPHANS:
        seen.add(ino)
        try:
            following = _NUMBER.unpack_from(volume.raw_inode(ino), _DTIME_AT)[0]
        except OSError:
            return
        if following > volume.superblock.inodes_count:
            return
        yield ino
        ino = following


def _in_file(volume: Volume) -> list[int]:
    """Return what the orphan file names. All of it must be sound, as for the kernel."""
    superblock, metadata = volume.superblock, volume.metadata
    if not superblock.compat & features.ORPHAN_FILE:
        return []
    inode = volume.any_inode(superblock.orphan_inum)
    seed = crc32c(superblock.checksum_seed, _NUMBER.pack(inode.ino) + _NUMBER.pack(inode.generation))
    numbers: list[int] = []
    for logical in range(min(inode.size >> superblock.shift, MOST_ORPHANS)):
        start, _end, target = find(metadata, inode, logical)
        block = target + logical - start
        if not target:
            raise damaged(f"the orphan file, inode {inode.ino}, block {logical}: a hole")
        data = metadata.block(block)
        magic, stored = _TAIL.unpack_from(data, len(data) - _TAIL.size)
        if magic != _MAGIC:
            raise damaged(f"the orphan file, inode {inode.ino}, block {block}: magic number 0x{magic:08x}")
        entries = data[: -_TAIL.size]
        if metadata.checksums and stored != crc32c(seed, _LONG.pack(block) + entries):
            raise wrong_checksum(f"the orphan file, inode {inode.ino}, block {block}")
        numbers += [ino for (ino,) in _NUMBER.iter_unpack(entries) if ino]
        if len(numbers) > MOST_ORPHANS:
            break
    return numbers


def _process(volume: Volume, replay: Replay, ino: int) -> bool:
    """Delete or truncate one; False where the kernel would look no further."""
    try:
        if ino < volume.superblock.first_ino or not volume.is_allocated(ino):
            return False
        inode = volume.any_inode(ino, unlinked=True)
    except OSError:
        return False
    replay.orphans += 1
    if not inode.attr.nlink:
        _delete(volume, replay, inode)
    elif inode.kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        _truncate(volume, replay, inode)
    else:
        return False
    return True


def _delete(volume: Volume, replay: Replay, inode: Inode) -> None:
    """Count what becomes free: the inode, its blocks, and what holds its attributes once nobody shares it any more."""
    if inode.ino in replay.deleted:
        return
    replay.deleted.add(inode.ino)
    superblock = volume.superblock
    cluster = 1 << superblock.shift + superblock.cluster_ratio_bits - 9  # sectors
    sectors = inode.attr.blocks
    try:
        if inode.file_acl:
            block = -inode.file_acl
            replay.let_go[block] = replay.let_go.get(block, 0) + 1
            if replay.let_go[block] != xattrs.references(volume.metadata, inode):
                sectors -= cluster
        for holder in volume.ea_inodes(inode):
            sectors += _let_go(volume, replay, holder, cluster)
    except OSError:
        pass  # damaged attributes: what they hold is not known
    replay.freed_inodes += 1
    replay.freed_blocks += sectors >> superblock.shift - 9


def _let_go(volume: Volume, replay: Replay, holder: int, cluster: int) -> int:
    """Count one user less of inode *holder*, an attribute's value; return by how many sectors more becomes free.

    The user's own count includes the value, in clusters, though it has none of them.
    """
    raw, value = volume.raw_inode(holder), volume.any_inode(holder)
    if not value.flags & EA_INODE_FL:
        return 0
    high, low = (_NUMBER.unpack_from(raw, at)[0] for at in _REFERENCES_AT)
    charged = -(-value.size // (cluster << 9)) * cluster
    replay.let_go[holder] = replay.let_go.get(holder, 0) + 1
    if replay.let_go[holder] != high << 32 | low:
        return -charged
    replay.freed_inodes += 1
    return value.attr.blocks - charged


def _truncate(volume: Volume, replay: Replay, inode: Inode) -> None:
    """Take away what lies behind the end of the file."""
    if inode.inline:
        return
    superblock, metadata = volume.superblock, volume.metadata
    keep = inode.size + superblock.block_size - 1 >> superblock.shift
    try:
        runs = [*replay.runs(inode)]
        tree = tree_blocks if inode.flags & EXTENTS_FL else pointer_blocks
        freed = tree(metadata, inode, keep, replay.spend)
    except OSError as error:
        metadata.note(f"orphan left as it is: {error.strerror}")
        return
    kept = [(start, min(end, keep), block) for start, end, block in runs if start < keep]
    bits = superblock.cluster_ratio_bits
    freed = (freed << bits) + (_clusters(runs, bits) - _clusters(kept, bits) << bits)
    if not freed:
        return
    replay.touch(inode.ino)
    replay.recount(inode.ino, max(0, inode.attr.blocks - (freed << superblock.shift - 9)))
    if inode.flags & EXTENTS_FL:
        metadata.remade[inode.ino] = _node(kept)


def _clusters(runs: list[tuple[int, int, int]], bits: int) -> int:
    """Return how many clusters *runs* lie in; neighbours in a file may share one."""
    count, last = 0, -1
    for start, end, block in runs:
        first, behind = abs(block) >> bits, abs(block) + end - start - 1 >> bits
        count += behind - first + (first != last)
        last = behind
    return count


def _node(runs: list[tuple[int, int, int]]) -> ExtentNode:
    """Return *runs* as one leaf."""
    return ExtentNode(0, [run[0] for run in runs], [run[1] for run in runs], [run[2] for run in runs])
