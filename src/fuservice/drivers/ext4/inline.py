"""Data inside the inode: the 60 bytes of ``i_block``, continued by the value of the attribute ``system.data``.

Without that attribute in the inode's body the flag says nothing: such an inode is one with blocks, as for the kernel. Source: the kernel's Documentation/filesystems/ext4/inlinedata.rst.
"""

from __future__ import annotations

from fuservice.drivers.ext4 import xattrs
from fuservice.drivers.ext4.damage import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.drivers.ext4.inodes import Inode

#: The name under index "system." that continues i_block.
NAME = b"data"


def is_in(superblock_features: int, inode: Inode, raw: bytes) -> bool:
    """Say whether the data of *inode* are in its body *raw*; also where that is damaged, which its reader will be told."""
    try:
        area = xattrs.body_area(superblock_features, inode, raw)
    except OSError:
        return True
    return xattrs.find_slot(area, xattrs.SYSTEM, NAME) is not None


def continuation(superblock_features: int, inode: Inode, raw: bytes) -> bytes:
    """Return the part of the data behind the first 60 bytes; EIO where the inode has no place for it."""
    if inode.xattrs:
        area = xattrs.body_area(superblock_features, inode, raw)
        slot = xattrs.find_slot(area, xattrs.SYSTEM, NAME)
        if slot and not slot[3]:
            return xattrs.stored_value(area, slot)
    raise damaged(f"inode {inode.ino}: its data should be in the inode, but are not")


def read_inline(data: bytes, size: int, offset: int, into: memoryview) -> memoryview:
    """Copy a file's *data*, of which *size* bytes count (zeros follow what is stored), from *offset* into *into*."""
    length = max(0, min(len(into), size - offset))
    piece = data[offset : offset + length]
    into[: len(piece)] = piece
    into[len(piece) : length] = bytes(length - len(piece))
    return into[:length]
