"""-o recover: what we show of a filesystem whose journal was cut by a crash is what the kernel shows after it has replayed it.

A crash is a copy of the image's file, taken while the filesystem is mounted and what was done has reached the journal only.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from fuservice.drivers.ext4.data import find
from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.drivers.ext4.overlay import JOURNAL_MAGIC
from fuservice.errors import ImageError
from tests.drivers.ext4.images import MIB, mke2fs
from tests.drivers.ext4.populate import if_it_can
from tests.drivers.ext4.view import Mounted, Served, View, differences, errors, survey
from tests.support.mounts import loop_mounted

pytestmark = pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")

#: name → options of mke2fs, options of the mount. Tags of 8, 12 and 16 bytes, checksums of all kinds, all block sizes.
CRASHES: dict[str, tuple[str, str]] = {
    "ext4": ("-t ext4 -b 4096", ""),
    "1k": ("-t ext4 -b 1024", ""),
    "2k": ("-t ext4 -b 2048", ""),
    "ext3": ("-t ext3 -b 4096", ""),
    "ext3-1k": ("-t ext3 -b 1024", ""),
    "32bit": ("-t ext4 -O ^64bit -b 4096", ""),
    "no-checksums": ("-t ext4 -O ^metadata_csum -b 4096", ""),
    "transaction-checksum": ("-t ext4 -O ^metadata_csum -b 1024", "journal_checksum"),
    "transaction-checksum-32bit": ("-t ext4 -O ^metadata_csum,^64bit -b 4096", "journal_checksum"),
    "asynchronous": ("-t ext4 -b 4096", "journal_async_commit,data=writeback"),
    "asynchronous-transaction": ("-t ext4 -O ^metadata_csum -b 4096", "journal_async_commit,data=writeback"),
    "data": ("-t ext4 -b 4096", "data=journal"),
    "data-1k": ("-t ext4 -b 1024", "data=journal"),
    "data-no-checksums": ("-t ext4 -O ^metadata_csum,^64bit -b 4096", "data=journal"),
    "data-ext3": ("-t ext3 -b 1024", "data=journal"),
    "writeback": ("-t ext4 -b 4096", "data=writeback"),
    "inline": ("-t ext4 -I 512 -O inline_data -b 4096", ""),
    "bigalloc": ("-t ext4 -b 4096 -C 16384 -O bigalloc", ""),
    "meta_bg": ("-t ext4 -b 1024 -O meta_bg,^resize_inode", ""),
    "seed": ("-t ext4 -b 4096 -O metadata_csum_seed,ea_inode,large_dir", ""),
    "no-extents": ("-t ext4 -b 4096 -O ^extent,^64bit", ""),
    "nodelalloc": ("-t ext4 -b 4096", "nodelalloc"),
    "around": ("-t ext4 -b 1024 -J size=1", "data=journal"),
    "around-more": ("-t ext4 -b 1024 -J size=1 -O ^metadata_csum", "data=journal,journal_checksum"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRASHES)
def test_as_the_kernel_after_its_replay(name: str, tmp_path: Path) -> None:
    crashed = crash(tmp_path, *CRASHES[name], seed=len(name), rounds=25 if name.startswith("around") else 3)
    before, digest = opened(crashed), hashlib.sha256(crashed.read_bytes()).digest()
    ours = opened(crashed, recover=True)
    assert hashlib.sha256(crashed.read_bytes()).digest() == digest
    with loop_mounted(crashed, made(tmp_path / "kernel"), options="rw,loop,noatime,nodiscard") as point:
        theirs = survey(Mounted(os.fspath(point)))
    assert differences(ours, theirs) == []
    assert errors(ours) == []
    assert len(ours) > 100
    assert differences(before, theirs) != []  # there was something to recover


@pytest.mark.parametrize("options", ["", "-c -v 2", "-c -v 3"])
def test_transactions_by_debugfs(options: str, tmp_path: Path) -> None:
    """Written twice, forbidden, not committed: each block is what e2fsck makes of it."""
    image = mke2fs(tmp_path / "image", "-t ext4 -b 1024 -O ^64bit", 8 * MIB)
    (tmp_path / "one").write_bytes(b"".join(bytes([number]) * 1024 for number in range(1, 5)))
    (tmp_path / "two").write_bytes(JOURNAL_MAGIC * 256 + b"\xaa" * 1024)
    words = f"jo {options}\njw -b 7000,7001,7002,7003 {tmp_path}/one\njw -b 7001,7004 {tmp_path}/two\n"
    words += f"jw -r 7000,7003\njw -b 7003 {tmp_path}/two\njw -b 7002 -c {tmp_path}/two\njc\n"
    subprocess.run(["debugfs", "-w", "-f", "-", image], input=words, capture_output=True, text=True, check=True)
    replayed = tmp_path / "replayed"
    subprocess.run(["cp", image, replayed], check=True)
    subprocess.run(["e2fsck", "-y", "-E", "journal_only", replayed], check=False, capture_output=True)
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device = Ext4Filesystem(fd, recover=True).volume.metadata.device
        ours = device.read(7000 << 10, 5 << 10)
        assert ours == replayed.read_bytes()[7000 << 10 : 7005 << 10]
        assert [ours[at << 10] for at in range(5)] == [0, 0xC0, 3, 0xC0, 0xAA]
        assert (
            device.read((7001 << 10) + 2, 5) == (JOURNAL_MAGIC * 2)[2:7]
        )  # a read that begins within the magic number
        assert device.read((7001 << 10) - 2, 4) == b"\0\0" + JOURNAL_MAGIC[:2]
    finally:
        os.close(fd)


def test_a_journal_elsewhere_is_refused(tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", "-t ext4 -b 4096 -O ^metadata_csum", 8 * MIB)
    subprocess.run(["debugfs", "-w", "-R", "ssv journal_inum 0", image], check=True, capture_output=True)
    subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", image], check=True, capture_output=True)
    with pytest.raises(ImageError, match="the journal is not in the image"):
        opened(image, recover=True)


#: Which bytes of which block of the journal are changed, in which bits, and what is said then.
DAMAGE = {
    "magic": (0, 0, b"\xc0", "has no superblock"),
    "block size": (0, 12, b"\xff", "blocks of"),
    "feature": (0, 0x28, b"\x80", "unknown features"),
    "start": (0, 28, b"\x01", "superblock"),
    "checksum": (0, 0xFF, b"\x01", "checksum of its superblock"),
    "descriptor": (1, 100, b"\xff\xff", "a checksum in transaction"),
    "data": (3, 1000, b"\xa5\x5a", "checksum of its block"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_refused(damage: str, tmp_path: Path) -> None:
    """As by the kernel; without "recover" the rest is served."""
    crashed = crash(tmp_path, "-t ext4 -b 4096 -J size=4", "", seed=1, rounds=2)
    block, at, change, words = DAMAGE[damage]
    fd = os.open(crashed, os.O_RDWR | os.O_CLOEXEC)
    try:
        volume = Ext4Filesystem(fd).volume
        _start, _end, first = find(volume.metadata, volume.any_inode(8), 0)
        place = (first + block << 12) + at
        os.pwrite(
            fd, bytes(old ^ bits for old, bits in zip(os.pread(fd, len(change), place), change, strict=True)), place
        )
    finally:
        os.close(fd)
    with pytest.raises(ImageError, match=words):
        opened(crashed, recover=True)
    assert len(opened(crashed)) > 1
    with (
        pytest.raises(subprocess.CalledProcessError),
        loop_mounted(crashed, made(tmp_path / "kernel"), options="rw,loop"),
    ):
        pass


def crash(directory: Path, options: str, mount_options: str, *, seed: int, rounds: int) -> Path:
    """Return an image as a crash leaves it: some rounds of changes are in its journal, of which one has been checkpointed."""
    image = mke2fs(directory / "image", options, 24 * MIB, "-N", "2048")
    words = ",".join(filter(None, ["rw,loop,noatime,commit=600,noinit_itable", mount_options]))
    with loop_mounted(image, made(directory / "rw"), options=words) as point:
        change(point, random.Random(seed), 0)
        subprocess.run(["sync", "-f", point], check=True)
        for number in range(1, rounds):
            change(point, random.Random(seed + number), number)
            synced(point / "committed", b"%d" % number)
        subprocess.run(["cp", "--sparse=always", image, directory / "crashed"], check=True)
    return directory / "crashed"


def change(top: Path, chance: random.Random, number: int) -> None:
    """Make, change and remove things of every kind; directories are removed, so that blocks are revoked and used again."""
    (top / f"round-{number}").mkdir()
    for index in range(60):
        path = top / f"round-{number}" / f"file-{index}{'x' * (index % 50)}"
        path.write_bytes((JOURNAL_MAGIC if index % 3 == 0 else b"") + chance.randbytes(chance.randrange(6000)))
        with if_it_can():
            os.setxattr(path, "user.number", b"%d" % number * chance.randrange(1, 200))
        if index % 5 == 0:
            (top / f"round-{number}" / f"link-{index}").symlink_to("t" * chance.randrange(1, 200))
        if index % 7 == 0:
            (top / f"round-{number}" / f"directory-{index}").mkdir()
    before = top / f"round-{number - 1}"
    if before.exists():
        for path in sorted(before.iterdir())[::2]:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for path in sorted(before.glob("file*")):
            path.chmod(0o600 + number)
            os.utime(path, ns=(number * 10**9, chance.randrange(1 << 60)))
    remove(top / f"round-{number - 2}")


def remove(directory: Path) -> None:
    if directory.exists():
        for path in directory.iterdir():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        directory.rmdir()


def synced(path: Path, data: bytes) -> None:
    """Write *path*, and everything before it into the journal."""
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def opened(image: Path, *, recover: bool = False) -> View:
    """Return what we show of *image*."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        filesystem = Ext4Filesystem(fd, recover=recover)
        assert any("journal was not replayed" in warning for warning in filesystem.volume.warnings) == (not recover)
        return survey(Served(filesystem))
    finally:
        os.close(fd)


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory
