"""Where data lie: as the kernel's FS_IOC_FIEMAP tells of its own mount."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4.fiemap import UNWRITTEN, fiemap
from tests.drivers.ext4.images import MIB, full_image, mke2fs, served, small_tree
from tests.drivers.ext4.view import attempt
from tests.fuse.kernelmount import served as mounted_by_fuse
from tests.support.mounts import loop_mounted

if TYPE_CHECKING:
    from fuservice.drivers.ext4.filesystem import Ext4Filesystem

FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_COUNT = 4000


def kernels(path: str) -> list[tuple[int, int, int, int]]:
    """Return what FS_IOC_FIEMAP says of *path*, with neighbours put together (the kernel ends an extent at 32,768 blocks)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = bytearray(
            _HEAD.pack(0, (1 << 64) - 1, 0, 0, _COUNT, 0).ljust(_HEAD.size + _COUNT * _EXTENT.size, b"\0")
        )
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
    finally:
        os.close(fd)
    count = _HEAD.unpack_from(buffer)[3]
    found: list[tuple[int, int, int, int]] = []
    for at in range(count):
        logical, physical, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + at * _EXTENT.size)
        kind = flags & UNWRITTEN
        assert flags & ~(UNWRITTEN | 0x1001) == 0, hex(flags)  # besides: the last one, and one that was put together
        before = found[-1] if found else None
        if before and before[0] + before[2] == logical and before[1] + before[2] == physical and before[3] == kind:
            found[-1] = (*before[:2], before[2] + length, kind)
        else:
            found.append((logical, physical, length, kind))
    return found


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize("name", ["ext4", "ext4-1k", "ext3", "ext4-bigalloc", "ext4-no-extents", "ext4-64bit-meta_bg"])
def test_as_the_kernel_tells(name: str, tmp_path: Path) -> None:
    image = full_image(tmp_path, name)
    (tmp_path / "kernel").mkdir()
    files = unwritten = 0
    with served(image) as filesystem, loop_mounted(image, tmp_path / "kernel") as point:
        for top, directories, names in os.walk(point):
            for path in [os.path.join(top, each) for each in [*names[:60], *directories]]:  # noqa: PTH118
                status = os.lstat(path)
                if os.path.islink(path) or not (os.path.isfile(path) or os.path.isdir(path)):  # noqa: PTH112, PTH113, PTH114
                    continue
                ours = [*fiemap(filesystem.volume.metadata, filesystem.volume.inode(status.st_ino))]
                assert ours == kernels(path), path
                files += 1
                unwritten += any(extent[3] for extent in ours)
    print(f"{name}: {files} files and directories, {unwritten} with unwritten extents")
    assert files > 300
    assert unwritten >= (name.startswith("ext4") and "no-extents" not in name)


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize("name", ["ext4", "ext3", "ext4-bigalloc-1k", "ext4-inline"])
def test_seeks_from_anywhere(name: str, tmp_path: Path) -> None:
    """SEEK_DATA and SEEK_HOLE as the kernel answers them, from the edges of blocks and runs, and from anywhere."""
    image = full_image(tmp_path, name)
    (tmp_path / "kernel").mkdir()
    chance, asked = random.Random(name), 0
    with served(image) as filesystem, loop_mounted(image, tmp_path / "kernel") as point:
        for path in [*(point / "sparse").iterdir(), *(point / "sizes").iterdir(), point / "fragmented/pieces"]:
            inode = filesystem.volume.inode(path.stat().st_ino)
            edges = [0, inode.size]
            if not inode.inline:
                for logical, _physical, length, _flags in fiemap(filesystem.volume.metadata, inode):
                    edges += [logical, logical + length]
            places = {max(0, edge + by) for edge in chance.sample(edges, min(40, len(edges))) for by in (-1, 0, 1)}
            places |= {chance.randrange(inode.size + 5000) for _ in range(20)}
            asked += same_answers(filesystem, inode.ino, path, places)
    assert asked > 1000


def same_answers(filesystem: Ext4Filesystem, node: int, path: Path, places: set[int]) -> int:
    """Ask both from all *places*; return how often."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for place in places:
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                ours = attempt(lambda p=place, w=whence: filesystem.lseek(node, 0, p, w))  # type: ignore[misc]
                theirs = attempt(lambda p=place, w=whence: os.lseek(fd, p, w))  # type: ignore[misc]
                assert ours == theirs, (path, place, whence)
    finally:
        os.close(fd)
    return 2 * len(places)


@pytest.mark.needs("root", "fuse", "e2fsprogs")
def test_no_fuse_mount_can_tell(tmp_path: Path, mount_point: Path) -> None:
    """The proof is one line: the kernel refuses by itself, no request reaches the server."""
    small_tree(tmp_path / "tree")
    image = mke2fs(tmp_path / "image", "-t ext4", 8 * MIB, "-d", os.fspath(tmp_path / "tree"))
    with served(image) as filesystem, mounted_by_fuse(mount_point, filesystem):
        with pytest.raises(OSError, match="not supported") as refused:
            kernels(os.fspath(mount_point / "file"))
        assert refused.value.errno == errno.EOPNOTSUPP
