"""A file's bytes: logical blocks to runs, runs to one read each, straight into the caller's buffer.

Sparse and never-written ranges read as zeros without touching the image. All that follows an inode's map goes through
:func:`find`, so what is bounded here is bounded everywhere.
"""

from __future__ import annotations

import errno
import os

from fuservice.drivers.ext4.blockmap import find_mapped, most_blocks
from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.extents import MOST_BLOCKS, find_extent
from fuservice.drivers.ext4.inodes import EXTENTS_FL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from fuservice.drivers.ext4.extents import Run
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.metadata import Metadata

ZEROS: Final = memoryview(bytes(1 << 20))  # calloc: no memory until somebody looks
#: Runs that one request looks at, at most: a second or two of work.
MOST_STEPS: Final = 200_000


def find(metadata: Metadata, inode: Inode, logical: int) -> Run:
    """Return the run around *logical*, and remember it; EIO where the map is damaged or cannot reach so far."""
    run = inode.run
    if run[0] <= logical < run[1]:
        return run
    if inode.flags & EXTENTS_FL:
        if logical >= MOST_BLOCKS:
            raise damaged(f"inode {inode.ino}: no extent reaches logical block {logical}")
        run = find_extent(metadata, inode, logical)
    else:
        run = find_mapped(metadata, inode, logical)
    inode.run = run
    return run


def read_data(metadata: Metadata, inode: Inode, offset: int, into: memoryview) -> memoryview:
    """Return up to ``len(into)`` bytes from *offset*, fewer only at the end of the file; *into* holds them, or nothing does."""
    length = min(len(into), inode.size - offset)
    if length <= 0:
        return into[:0]
    into = into[:length]
    shift = metadata.superblock.shift
    start, end, target = inode.run
    if target and start << shift <= offset and offset + length <= end << shift:  # all of it where the last read was
        metadata.device.read_into((target - start << shift) + offset, into)
        return into
    return read_blocks(metadata, inode, offset, into)


def read_blocks(metadata: Metadata, inode: Inode, offset: int, into: memoryview) -> memoryview:
    """Fill *into* run by run, whatever the file's size; return it, or as many zeros."""
    shift, length = metadata.superblock.shift, len(into)
    done = 0
    while done < length:
        position = offset + done
        start, end, target = find(metadata, inode, position >> shift)
        piece = min(length - done, (end << shift) - position)
        if target:
            metadata.device.read_into((target - start << shift) + position, into[done : done + piece])
        elif piece == length <= len(ZEROS):
            return ZEROS[:length]
        else:
            clear(into[done : done + piece])
        done += piece
    return into


def clear(into: memoryview) -> None:
    """Fill *into* with zeros."""
    for at in range(0, len(into), len(ZEROS)):
        piece = into[at : at + len(ZEROS)]
        piece[:] = ZEROS[: len(piece)]


def read_all(metadata: Metadata, inode: Inode, most: int) -> bytes:
    """Return the first *most* bytes of a file."""
    buffer = bytearray(min(most, inode.size))
    return bytes(read_data(metadata, inode, 0, memoryview(buffer)))


def seek(metadata: Metadata, inode: Inode, offset: int, whence: int) -> int:
    """SEEK_DATA and SEEK_HOLE of lseek(2): never-written extents are holes; ENXIO at and beyond the end.

    Where a map has more runs than one request may look at, the answer is still a true one: lseek(2) lets a filesystem take
    a hole for data.
    """
    if not 0 <= offset < inode.size:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    shift, end, wanted = metadata.superblock.shift, inode.size, whence == os.SEEK_DATA
    reach = MOST_BLOCKS if inode.flags & EXTENTS_FL else most_blocks(metadata.superblock)
    position = offset
    for _ in range(MOST_STEPS):
        if position >> shift >= reach:
            position = end
        if position >= end:
            break
        _start, behind, target = find(metadata, inode, position >> shift)
        if bool(target) == wanted:
            return position
        position = behind << shift
    else:
        return position if wanted else end
    if wanted:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    return end


def mapped_runs(metadata: Metadata, inode: Inode, first: int, below: int) -> Iterator[Run]:
    """Yield the runs with data of logical blocks *first* to *below* - 1, in order; EIO beyond :data:`MOST_STEPS` runs."""
    logical = first
    for _ in range(MOST_STEPS):
        if logical >= below:
            return
        start, end, target = find(metadata, inode, logical)
        if target:
            yield logical, min(end, below), target + logical - start
        logical = end
    raise damaged(f"inode {inode.ino}: more than {MOST_STEPS} runs of blocks")
