"""Superblocks made to order."""

from __future__ import annotations

import struct

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.superblock import Superblock


def superblock(**fields: int) -> Superblock:
    """Return the superblock of a filesystem of 8192 blocks of 4 KiB, with *fields* in the place of its own."""
    return Superblock(superblock_bytes(**fields))


PLACES = {
    "inodes_count": (0x00, "I"), "blocks_count": (0x04, "I"), "first_data_block": (0x14, "I"), "log_block_size": (0x18, "I"),
    "log_cluster_size": (0x1C, "I"), "blocks_per_group": (0x20, "I"), "clusters_per_group": (0x24, "I"),
    "inodes_per_group": (0x28, "I"), "magic": (0x38, "H"), "state": (0x3A, "H"), "rev_level": (0x4C, "I"), "first_ino": (0x54, "I"),
    "inode_size": (0x58, "H"), "compat": (0x5C, "I"), "incompat": (0x60, "I"), "ro_compat": (0x64, "I"),
    "reserved_gdt": (0xCE, "H"), "desc_size": (0xFE, "H"), "mount_opts": (0x100, "I"), "first_meta_bg": (0x104, "I"), "blocks_high": (0x150, "I"),
    "backup_0": (0x24C, "I"), "backup_1": (0x250, "I"),
}  # fmt: skip
USUAL = {
    "inodes_count": 2048, "blocks_count": 8192, "log_block_size": 2, "log_cluster_size": 2, "blocks_per_group": 32_768,
    "clusters_per_group": 32_768, "inodes_per_group": 2048, "magic": 0xEF53, "state": 1, "rev_level": 1, "first_ino": 11,
    "inode_size": 256, "incompat": features.EXTENTS | features.FILETYPE | features.BITS_64, "ro_compat": features.HUGE_FILE | 1,
    "desc_size": 64,
}  # fmt: skip


def superblock_bytes(**fields: int) -> bytes:
    data = bytearray(1024)
    for name, value in (USUAL | fields).items():
        at, letter = PLACES[name]
        struct.pack_into("<" + letter, data, at, value)
    return bytes(data)
