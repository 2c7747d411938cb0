"""Each structure by itself: what is taken, what is refused, and in which words."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from fuservice.drivers.ext4 import acl
from fuservice.drivers.ext4.blockmap import most_blocks
from fuservice.drivers.ext4.caches import Generations
from fuservice.drivers.ext4.device import Device
from fuservice.drivers.ext4.dirblocks import DirFormat, find_name, parse_block
from fuservice.drivers.ext4.extents import MOST_BLOCKS, parse_node
from fuservice.drivers.ext4.inodes import parse_inode
from fuservice.errors import ImageError
from tests.drivers.ext4.superblocks import superblock


def node(
    *entries: tuple[int, int, int], depth: int = 0, magic: int = 0xF30A, count: int | None = None, most: int = 4
) -> bytes:
    """Return an i_block with a node: leaf entries (logical, length, physical), index entries (logical, 0, physical)."""
    data = struct.pack("<HHHHI", magic, len(entries) if count is None else count, most, depth, 0)
    for logical, length, physical in entries:
        low, high = physical & 0xFFFFFFFF, physical >> 32
        data += (
            struct.pack("<IIHH", logical, low, high, 0) if depth else struct.pack("<IHHI", logical, length, high, low)
        )
    return data.ljust(60, b"\0")


def test_a_leaf() -> None:
    parsed = parse_node(superblock(), node((0, 10, 100), (20, 1000, 200), (40_000, 32769, 300)))
    assert (parsed.depth, parsed.starts, parsed.ends) == (0, [0, 20, 40_000], [10, 1020, 40_001])
    assert parsed.targets == [100, 200, -300]  # the last was never written


@pytest.mark.parametrize(
    "data",
    [
        node(magic=0xF30B),
        node(depth=6, count=1),
        node(most=0),
        node(most=5),
        node(count=5),
        node(count=3, most=2),
        node(depth=1),  # an index without entries
        node((0, 0, 100)),
        node((0, 0x8000 | 0, 8000)),  # 32768 blocks, beyond the end
        node((0, 1, 0)),
        node((0, 2, 8191)),
        node((0, 1, 1 << 40)),
        node((0, 5, 100), (4, 1, 200)),
        node((9, 1, 100), (3, 1, 200)),
        node((MOST_BLOCKS, 2, 100)),
        node((0, 0, 8192), depth=1),
        node((5, 0, 100), (5, 0, 101), depth=1),
        b"\0" * 60,
        b"\xff" * 60,
    ],
)
def test_a_node_that_cannot_be(data: bytes) -> None:
    with pytest.raises(OSError, match="bad extent") as caught:
        parse_node(superblock(), data)
    assert caught.value.errno == errno.EIO


def test_how_far_block_maps_reach() -> None:
    assert most_blocks(superblock()) == 12 + 1024 + 1024**2 + 1024**3
    assert most_blocks(superblock(log_block_size=6, log_cluster_size=6)) == 1 << 32


def dirent(ino: int, name: bytes, length: int = 0, kind: int = 1, name_length: int | None = None) -> bytes:
    length = length or (8 + len(name) + 3 & ~3)
    head = struct.pack("<IHBB", ino, length, len(name) if name_length is None else name_length, kind)
    return (head + name).ljust(length, b"\0")[:length]


FORMAT = DirFormat(1000, filetype=True, block_size=1024)


def block(*entries: bytes) -> bytes:
    """Return *entries* filled up to 1 KiB by one without an inode."""
    data = b"".join(entries)
    return data + dirent(0, b"", 1024 - len(data))


def test_a_block_of_a_directory() -> None:
    data = block(
        dirent(2, b".", kind=2),
        dirent(2, b"..", kind=2),
        dirent(12, b"a"),
        dirent(0, b"gone"),
        dirent(13, b"\xff\n", kind=7),
    )
    found = parse_block(FORMAT, data, 0, 1024, dots=True)
    assert (found.fault, found.unused) == ("", 2)
    assert found.names == [
        (12, 2, 0o040000, b"."), (24, 2, 0o040000, b".."), (36, 12, 0o100000, b"a"), (60, 13, 0o120000, b"\xff\n"),
    ]  # fmt: skip
    assert find_name(FORMAT, data, 0, 1024, b"\xff\n") == 13
    assert find_name(FORMAT, data, 0, 1024, b"gone") == 0


@pytest.mark.parametrize("name", [b"a/b", b"nul\0", b".", b"..", b"/", b""])
def test_names_that_no_file_can_have(name: bytes) -> None:
    found = parse_block(
        FORMAT, block(dirent(12, b"before"), dirent(13, name, 20), dirent(14, b"behind")), 0, 1024, dots=False
    )
    assert [entry[3] for entry in found.names] == [b"before", b"behind"]
    assert found.fault == "an impossible name at byte 16"


@pytest.mark.parametrize(
    "bad",
    [
        dirent(13, b"", 8),
        struct.pack("<IHBB", 13, 0, 1, 1),
        struct.pack("<IHBB", 13, 13, 1, 1) + b"x" * 5,
        dirent(13, b"x", 12, name_length=5),
        dirent(13, b"x", 2048),
        dirent(1001, b"x"),
        dirent(13, b"x", 1000),  # leaves 8 bytes at the end
        b"\xff" * 12,
    ],
)
def test_an_entry_that_ends_its_block(bad: bytes) -> None:
    found = parse_block(FORMAT, (dirent(12, b"before") + bad).ljust(1024, b"\0")[:1024], 0, 1024, dots=False)
    assert [entry[3] for entry in found.names] == [b"before"]
    assert found.fault.startswith("bad entry at byte 16")


def test_entries_as_long_as_a_block_of_64_kib() -> None:
    form = DirFormat(1000, filetype=False, block_size=1 << 16)
    for length in (0, 65535):
        data = (struct.pack("<IHBB", 12, length, 1, 2) + b"x").ljust(1 << 16, b"\0")
        found = parse_block(form, data, 0, 1 << 16, dots=False)
        assert (found.names, found.fault) == ([(1 << 16, 12, 0, b"x")], "")


def inode(**fields: object) -> bytes:
    """Return 256 bytes of an inode: a regular file, and the *fields* given as (offset, bytes)."""
    data = bytearray(256)
    struct.pack_into("<H", data, 0, 0o100644)
    struct.pack_into("<H", data, 0x1A, 1)
    struct.pack_into("<H", data, 0x80, 32)
    for value in fields.values():
        assert isinstance(value, tuple)
        at, content = value
        data[at : at + len(content)] = content
    return bytes(data)


@pytest.mark.parametrize(
    ("seconds", "extra", "time"),
    [
        (0, 0, 0), (-1, 0, -(10**9)), (-(1 << 31), 0, -(1 << 31) * 10**9), ((1 << 31) - 1, 999_999_999 << 2, (1 << 31) * 10**9 - 1),
        (-(1 << 31), 1, (1 << 31) * 10**9), (0, 1, (1 << 32) * 10**9), (-1, 3 | 5 << 2, ((3 << 32) - 1) * 10**9 + 5),
        ((1 << 31) - 1, 3, ((3 << 32) + (1 << 31) - 1) * 10**9),
    ],
)  # fmt: skip
def test_times(seconds: int, extra: int, time: int) -> None:
    raw = inode(mtime=(0x10, struct.pack("<i", seconds)), more=(0x88, struct.pack("<I", extra)))
    attr = parse_inode(superblock(), 12, raw).attr
    assert (attr.mtime_ns, attr.atime_ns, attr.btime_ns) == (time, 0, 0)


@pytest.mark.parametrize(
    ("extra", "times"), [(4, (1, 1, 1)), (8, (3, 1, 1)), (12, (3, 3, 1)), (16, (3, 3, 3)), (0, (3, 3, 3))]
)
def test_the_extra_part_counts_as_far_as_it_reaches(extra: int, times: tuple[int, int, int]) -> None:
    """Nanoseconds of ctime, mtime, atime; a part that was never used counts as a whole."""
    seconds = struct.pack("<iii", 0, 0, 0)
    raw = inode(times=(8, seconds), size=(0x80, struct.pack("<H", extra)), more=(0x84, struct.pack("<III", 12, 12, 12)))
    attr = parse_inode(superblock(), 12, raw).attr
    assert tuple(1 if time == 0 else time for time in (attr.ctime_ns, attr.mtime_ns, attr.atime_ns)) == times
    assert (attr.btime_ns is None) == (0 < extra < 20)


def test_owners_and_blocks() -> None:
    raw = inode(
        low=(2, b"\x01\x00"),
        high=(0x78, b"\x02\x00\x03\x00"),
        group=(0x18, b"\x05\x00"),
        sectors=(0x1C, b"\x08\0\0\0"),
        top=(0x74, b"\1\0"),
    )
    attr = parse_inode(superblock(), 12, raw).attr
    assert (attr.uid, attr.gid, attr.blocks) == (0x20001, 0x30005, (1 << 32) + 8)
    attr = parse_inode(superblock(mount_opts=0x10, ro_compat=0), 12, raw).attr
    assert (attr.uid, attr.gid, attr.blocks) == (1, 5, 8)
    huge = inode(flags=(0x20, struct.pack("<I", 0x40000)), sectors=(0x1C, b"\x08\0\0\0"))
    assert parse_inode(superblock(), 12, huge).attr.blocks == 64


@pytest.mark.parametrize(
    "raw",
    [
        inode(links=(0x1A, b"\0\0")),
        inode(mode=(0, b"\0\0")),
        inode(mode=(0, b"\xff\xff")),
        inode(size=(0x6C, b"\0\0\0\x80")),
        inode(extra=(0x80, b"\x84\0")),
        inode(extra=(0x80, b"\x1e\0")),
        inode(flags=(0x20, b"\0\0\0\x40")),
        bytes(256),
        b"\xff" * 256,
    ],
)
def test_an_inode_that_cannot_be(raw: bytes) -> None:
    with pytest.raises(OSError, match="inode 12: ") as caught:
        parse_inode(superblock(), 12, raw)
    assert caught.value.errno == errno.EIO


def test_acls() -> None:
    disk = (
        struct.pack("<I", 1)
        + struct.pack("<HH", 1, 6)
        + struct.pack("<HHI", 2, 7, 70_000)
        + struct.pack("<HH", 0x20, 4)
    )
    nobody = 0xFFFFFFFF
    assert acl.from_disk(12, disk) == struct.pack("<IHHIHHIHHI", 2, 1, 6, nobody, 2, 7, 70_000, 0x20, 4, nobody)
    for bad in (b"", b"\2\0\0\0", disk[:-1], disk[:-5], disk + b"\3\0\0\0", disk + b"\2\0\0\0"):
        with pytest.raises(OSError, match="access control list") as caught:
            acl.from_disk(12, bad)
        assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match="No data") as caught:
        acl.from_disk(12, struct.pack("<I", 1))
    assert caught.value.errno == errno.ENODATA


def test_a_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache: Generations[int, bytes] = Generations(100, len)
    cache.put(-1, b"used" * 5)
    for number in range(10_000):
        cache.put(number, b"x" * 7)
        assert cache.get(-1)
        assert cache.weight() <= 200
    assert cache.get(9_999)
    assert cache.get(5) is None
    cache.put(-2, b"too heavy" * 100)
    assert cache.get(-2) is None


def test_the_device_is_read_within_its_bounds(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(range(100)))
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CLOEXEC)
    try:
        device = Device(fd, offset=10, size=1000)
        assert device.size == 90
        assert device.read(5, 3) == b"\x0f\x10\x11"
        into = memoryview(bytearray(3))
        device.read_into(87, into)
        assert bytes(into) == b"abc"
        for position, length in ((-1, 2), (89, 2), (1 << 70, 1), (0, 1 << 70)):
            with pytest.raises(OSError, match="beyond the image's 90"):
                device.read(position, length)
        os.truncate(fd, 95)
        with pytest.raises(OSError, match="the image has shrunk"):
            device.read(80, 10)
        for offset in (-1, 101):
            with pytest.raises(ImageError, match="would start at byte"):
                Device(fd, offset=offset)
    finally:
        os.close(fd)


def test_only_files_and_block_devices_are_images() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(ImageError, match="a regular file or a block device"):
            Device(reading)
    finally:
        os.close(reading)
        os.close(writing)
