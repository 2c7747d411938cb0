"""The superblock and the group descriptors: what is taken, what is refused, and in which words."""

from __future__ import annotations

import pytest

from fuservice.drivers.ext4 import features
from fuservice.drivers.ext4.groups import descriptor_block, has_super, super_groups
from fuservice.errors import ImageError
from tests.drivers.ext4.superblocks import USUAL, superblock


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"magic": 0}, "no ext2, ext3 or ext4 filesystem: the magic number is 0x0000, not 0xef53"),
        ({"incompat": 0x1 | 0x1000}, "the filesystem uses what this reader does not know: compression, dirdata"),
        ({"incompat": 0x20000 | 1 << 31}, "does not know: unknown incompat feature 0x80000000"),
        ({"incompat": 0x8}, "external journal"),
        ({"log_block_size": 7}, "block size"),
        ({"log_block_size": 0xFFFFFFFF}, "block size"),
        ({"first_data_block": 8192}, "bad geometry: 8192 blocks"),
        ({"blocks_count": 0}, "bad geometry: 0 blocks"),
        ({"log_cluster_size": 3}, "fragment size"),
        ({"log_cluster_size": 30, "ro_compat": features.BIGALLOC}, "clusters of"),
        ({"log_cluster_size": 3, "ro_compat": features.BIGALLOC}, "clusters per group do not fit"),
        ({"blocks_per_group": 0}, "0 blocks or clusters per group"),
        ({"blocks_per_group": 1 << 31}, "blocks or clusters per group"),
        ({"log_block_size": 0, "log_cluster_size": 0, "blocks_per_group": 8192}, "block 0 cannot hold data"),
        ({"inode_size": 0}, "inodes of 0 bytes"),
        ({"inode_size": 384}, "inodes of 384 bytes"),
        ({"inode_size": 8192}, "inodes of 8192 bytes"),
        ({"inodes_per_group": 0}, "0 inodes per group"),
        ({"inodes_per_group": 1 << 30}, "inodes per group"),
        ({"first_ino": 10}, "first ordinary inode 10"),
        ({"inodes_count": 2047}, "2047 inodes, but 1 groups of 2048"),
        ({"desc_size": 32}, "group descriptors of 32 bytes"),
        ({"desc_size": 2048}, "group descriptors of 2048 bytes"),
        ({"reserved_gdt": 1025}, "1025 blocks reserved"),
        ({"blocks_high": 0xFFFFFFFF}, "inodes, but"),
    ],
)
def test_a_superblock_that_cannot_be(fields: dict[str, int], sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        superblock(**fields)


def test_what_a_user_is_told_at_opening() -> None:
    assert superblock().warnings == []
    for state in (0, 1):
        assert superblock(state=state, incompat=features.RECOVER).warnings == [
            "not cleanly unmounted: showing it as it is on the disk "
            "(its journal was not replayed: -o recover does that, in memory)"
        ]
    assert superblock(state=0).warnings == ["not cleanly unmounted: showing it as it is on the disk"]
    assert superblock(state=3).warnings == ["the filesystem is marked as having errors"]
    assert superblock(ro_compat=1 << 30).warnings == [
        "unknown ro_compat features 0x40000000: harmless for reading, by their definition"
    ]


def test_good_old_inodes() -> None:
    old = superblock(rev_level=0, inode_size=9999, first_ino=5, inodes_per_group=2048)
    assert (old.inode_size, old.first_ino) == (128, 11)


def test_copies_of_the_superblock() -> None:
    many = {"blocks_count": 32_768 * 400, "inodes_count": 2048 * 400}
    sparse, dense = superblock(**many), superblock(**many, ro_compat=0)
    assert [group for group in range(400) if has_super(sparse, group)] == [
        0,
        1,
        3,
        5,
        7,
        9,
        25,
        27,
        49,
        81,
        125,
        243,
        343,
    ]
    two = superblock(**many, compat=features.SPARSE_SUPER2, backup_0=1, backup_1=399)
    for each in (sparse, dense, two):
        for below in (0, 1, 2, 3, 4, 26, 125, 126, 400):
            assert super_groups(each, below) == sum(has_super(each, group) for group in range(below))
    assert super_groups(superblock(), 1 << 32) == 1 + len(
        {b**e for b in (3, 5, 7) for e in range(33) if b**e < 1 << 32}
    )


def test_where_descriptors_are() -> None:
    assert descriptor_block(superblock(), 0) == 1
    assert descriptor_block(superblock(), 3) == 4
    small = superblock(
        log_block_size=0,
        log_cluster_size=0,
        blocks_per_group=8192,
        first_data_block=1,
        blocks_count=8193,
        clusters_per_group=8192,
    )
    assert descriptor_block(small, 0) == 2
    meta = superblock(incompat=USUAL["incompat"] | features.META_BG, blocks_count=32_768 * 200, inodes_count=2048 * 200)
    assert descriptor_block(meta, 0) == 1
    assert descriptor_block(meta, 2) == 128 * 32_768  # group 128 has no copy of the superblock
