"""-o recover and orphans: files that were open and unlinked, or being truncated, at a crash, as the kernel's next mount treats them."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.errors import ImageError
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import MIB, mke2fs
from tests.drivers.ext4.populate import if_it_can
from tests.drivers.ext4.test_ext4_damage import debugfs, number
from tests.drivers.ext4.test_ext4_fastcommit import without_stamps
from tests.drivers.ext4.test_ext4_journal import change, made, synced
from tests.drivers.ext4.view import Mounted, Served, View, differences, errors, survey
from tests.support.mounts import loop_mounted

pytestmark = pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")

LAYOUTS = {
    "ext4": "-t ext4 -b 4096",
    "1k": "-t ext4 -b 1024",
    "ext3": "-t ext3 -b 1024",
    "no-checksums": "-t ext4 -b 2048 -O ^metadata_csum,^64bit",
    "bigalloc": "-t ext4 -b 4096 -C 16384 -O bigalloc",
    "ea_inode": "-t ext4 -b 4096 -O ea_inode",
    "orphan_file": "-t ext4 -b 4096 -O orphan_file",
    "orphan_file-1k": "-t ext4 -b 1024 -O orphan_file,^metadata_csum",
    "inline": "-t ext4 -b 4096 -I 512 -O inline_data",
}


@contextlib.contextmanager
def unlinked(top: Path) -> Iterator[None]:
    """Hold open what has no name any more."""
    chance = random.Random(7)
    held = []
    for at in range(25):
        path = top / f"gone-{at}"
        path.write_bytes(chance.randbytes(chance.choice((0, 10, 100, 5000, 100_000))))
        with path.open("r+b") as file:
            for _ in range(at % 4 * 5):
                os.pwrite(file.fileno(), b"piece", chance.randrange(4_000_000))
        with if_it_can():
            os.setxattr(path, "user.large", bytes([at % 3]) * chance.choice((10, 700)))
        with if_it_can():
            os.setxattr(path, "user.huge", bytes([at]) * 30_000) if at % 6 == 0 else None
        held.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        (top / f"kept-{at}").hardlink_to(path) if at % 5 == 4 else None
        path.unlink()
    (top / "directory").mkdir()
    held.append(os.open(top / "directory", os.O_RDONLY | os.O_CLOEXEC))
    (top / "directory").rmdir()
    try:
        yield
    finally:
        for fd in held:
            os.close(fd)


def ours(image: Path, *, recover: bool = True) -> View:
    with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        return survey(Served(Ext4Filesystem(fd.fileno(), recover=recover)))


def kernels(image: Path, point: Path) -> View:
    """Let the kernel do it, and return what it shows afterwards."""
    with loop_mounted(image, point, options="rw,loop,noatime,nodiscard,noinit_itable"):
        pass
    with loop_mounted(image, point):
        return survey(Mounted(os.fspath(point)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_unlinked_at_a_crash(name: str, tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", LAYOUTS[name], 24 * MIB, "-N", "2048")
    crashed = tmp_path / "crashed"
    with loop_mounted(image, made(tmp_path / "rw"), options="rw,loop,noatime,commit=600,noinit_itable") as point:
        change(point, random.Random(1), 0)
        subprocess.run(["sync", "-f", point], check=True)
        change(point, random.Random(2), 1)
        with unlinked(point):
            synced(point / "committed", b"1")
            subprocess.run(["cp", "--sparse=always", image, crashed], check=True)
    shown, before = ours(crashed), ours(crashed, recover=False)
    with Fd(os.open(crashed, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        said = Ext4Filesystem(fd.fileno(), recover=True).volume.warnings[-1]
        assert re.search(r"\([1-9]\d* blocks, 0 fast commit tags, 2[1-6] orphans\); nothing is written$", said)
    theirs = kernels(crashed, made(tmp_path / "kernel"))
    assert differences(shown, theirs) == []
    assert errors(shown) == []
    assert before[b""]["space"] != theirs[b""]["space"]


@pytest.mark.parametrize("name", ["ext4", "1k", "ext3", "no-checksums", "bigalloc"])
@pytest.mark.parametrize("size", [0, 1, 3000, 12 * 1024, 40_000, 300_000, 2_000_000])
def test_being_truncated(name: str, size: int, tmp_path: Path) -> None:
    """A truncation that had only begun: the size is set, the blocks are still there, the list has the inode."""
    image = mke2fs(tmp_path / "image", LAYOUTS[name], 24 * MIB, "-N", "512")
    chance = random.Random(size)
    with loop_mounted(image, made(tmp_path / "rw"), options="rw,loop,noinit_itable") as point:
        for at in range(4):
            with (point / f"file-{at}").open("wb") as file:
                file.write(chance.randbytes(at * 50_000))
                for _ in range(at * 8):
                    os.pwrite(file.fileno(), b"piece" * 300, chance.randrange(3_000_000))
    inodes = [number(image, f"/file-{at}") for at in range(4)]
    for at, ino in enumerate(inodes):
        debugfs(image, f"sif <{ino}> size {size}", f"sif <{ino}> dtime {inodes[at + 1] if at < 3 else 0:#x}")
    debugfs(image, f"ssv last_orphan {inodes[0]}")
    shown, before = ours(image), ours(image, recover=False)
    since = time.time_ns() - 50_000_000
    theirs = kernels(image, made(tmp_path / "kernel"))
    without_stamps(shown, theirs, since)
    assert differences(shown, theirs) == []
    assert before[b""]["space"] != theirs[b""]["space"]


def test_lists_that_cannot_be(tmp_path: Path) -> None:
    """A list in a circle ends; one that names the filesystem's own inodes, or free ones, is left, as by the kernel."""
    image = mke2fs(tmp_path / "image", "-t ext4 -b 1024", 8 * MIB)
    whole = ours(image)
    for first in (1, 2, 7, 11, 12, 60, 1_000_000, 0xFFFFFFFF):
        debugfs(image, f"ssv last_orphan {first:#x}", f"sif <12> dtime {first & 0xFFF:#x}")
        assert ours(image)[b""] == whole[b""]


@pytest.mark.parametrize("at", [0, 4096 - 8, 4096 - 4])
def test_a_damaged_orphan_file(at: int, tmp_path: Path) -> None:
    """Its blocks must all be sound, for the kernel too."""
    image = mke2fs(tmp_path / "image", "-t ext4 -b 4096 -O orphan_file", 16 * MIB)
    with Fd(os.open(image, os.O_RDWR | os.O_CLOEXEC)) as fd:
        volume = Ext4Filesystem(fd.fileno()).volume
        inode = volume.any_inode(volume.superblock.orphan_inum)
        place = (struct.unpack_from("<I", inode.blocks, 20)[0] << 12) + at
        os.pwrite(fd.fileno(), b"\x5a", place)
    with pytest.raises(ImageError, match="the orphan file, inode 12, block"):
        ours(image)
    assert len(ours(image, recover=False)) == 2
    with (
        pytest.raises(subprocess.CalledProcessError),
        loop_mounted(image, made(tmp_path / "kernel"), options="rw,loop"),
    ):
        pass
