"""Symbolic links: the target is in the inode itself ("fast"), in one block, or inline data.

A link is fast when it has no data blocks: those of a shared attribute block do not count. Targets end at the first NUL, as
for the kernel, and one that would be empty is damage. Source: the kernel's Documentation/filesystems/ext4/ifork.rst.
"""

from __future__ import annotations

import errno
import os
import stat

from fuservice.drivers.ext4 import features, inodes
from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.data import read_all
from fuservice.drivers.ext4.nokey import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.drivers.ext4.inodes import Inode
    from fuservice.drivers.ext4.volume import Volume


def is_fast(volume: Volume, inode: Inode) -> bool:
    """Say whether the target is in ``i_block``."""
    superblock = volume.superblock
    if superblock.incompat & features.EA_INODE:  # values in other inodes are counted among the blocks: the size tells
        return 0 < inode.size < len(inode.blocks)
    shared = 1 << superblock.shift + superblock.cluster_ratio_bits - 9 if inode.file_acl else 0
    return inode.attr.blocks == shared


def target(volume: Volume, inode: Inode) -> bytes:
    """Return where the link leads, as it is shown without the key if it is encrypted; EINVAL if it is no link."""
    if inode.kind != stat.S_IFLNK:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    block_size = volume.superblock.block_size
    if inode.inline:
        whole = (inode.blocks + volume.continuation(inode))[: inode.size]
    elif is_fast(volume, inode):
        if inode.size >= len(inode.blocks):
            raise damaged(f"inode {inode.ino}: a link of {inode.size} bytes without a block")
        whole = inode.blocks[: inode.size]
    else:
        whole = read_all(volume.metadata, inode, block_size)
        if not inode.flags & inodes.ENCRYPT_FL:
            whole = whole[: block_size - 1]  # where the kernel puts its NUL, however long the link says it is
    if inode.flags & inodes.ENCRYPT_FL:
        length = int.from_bytes(whole[:2], "little")
        if length + 2 > len(whole):
            raise damaged(f"inode {inode.ino}: an encrypted link of {length} bytes in {len(whole)}")
        whole = shown(whole[2 : 2 + length])
    path = whole.partition(b"\0")[0]
    if not path:
        raise damaged(f"inode {inode.ino}: a link that leads nowhere")
    return path[:4095]  # PATH_MAX counts the NUL
