"""The corpus: ext2, ext3 and ext4 images as mkfs makes them today and made them yesterday, filled by the kernel itself.

Filled through a read-write mount of the kernel's, so that everything has the shape the kernel gives it: hashed directories,
times in nanoseconds, attributes in inodes and in blocks, extents that split, unwritten extents, ACLs.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
import subprocess
from pathlib import Path

from demo.tree import plant
from tests.support.mounts import loop_mounted

ODD_FILES = 2100
BIG = (4 << 30) + (5 << 20) + 77
DEEP = 250

#: Name → what mkfs is told. Each differs from the default where a reader can go wrong.
IMAGES: dict[str, list[str]] = {
    "ext2": ["-t", "ext2"],
    "ext3": ["-t", "ext3"],
    "ext4": ["-t", "ext4"],
    "1k-blocks": ["-t", "ext4", "-b", "1024"],
    "2k-blocks": ["-t", "ext4", "-b", "2048"],
    "inline-data": ["-t", "ext4", "-O", "inline_data", "-I", "512"],
    "no-extents": ["-t", "ext4", "-O", "^extent,^64bit"],
    "no-64bit": ["-t", "ext4", "-O", "^64bit"],
    "64bit-meta-bg": ["-t", "ext4", "-O", "64bit,meta_bg,^resize_inode"],
    "large-dir": ["-t", "ext4", "-O", "large_dir,ea_inode"],
    "small-inodes": ["-t", "ext4", "-I", "128"],
    "yesterday": ["-t", "ext4", "-O", "^metadata_csum,^flex_bg,^dir_index,^huge_file,uninit_bg", "-b", "1024"],
}

#: Images that get the file of more than 4 GiB: one for each way to map its blocks.
WITH_BIG_FILE = {"ext2", "ext4"}


def make(name: str, image: Path, mount_point: Path) -> None:
    """Make the image *name* of the corpus at *image*, filling it through *mount_point*. Root only; mke2fs(8)."""
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mke2fs", "-q", "-F", *IMAGES[name], image], check=True, stdin=subprocess.DEVNULL)
    with loop_mounted(image, mount_point, options="loop,rw"):
        fill(mount_point, big=name in WITH_BIG_FILE)


def fill(top: Path, *, big: bool) -> None:
    """Fill the mounted filesystem *top* with everything the comparator can tell apart."""
    dice = random.Random(20_220_117)
    (top / "plain").mkdir()
    plant(top / "plain", privileged=True)
    _odd_files(top / "odd", dice)
    _maps(top / "maps", dice)
    _attributes(top / "attributes", dice)
    _deep(top)
    if big:
        _big(top / "big")


def _name(dice: random.Random, number: int) -> bytes:
    """Return one of as many names, of any byte but '/' and NUL, of 5 to 255 bytes."""
    length = dice.choice((5, 8, 20, 100, 250))
    body = bytes(dice.choice([b for b in range(1, 256) if b != 0x2F]) for _ in range(length))
    return b"%d-" % number + body[: 255 - len(b"%d-" % number)]


def _odd_files(where: Path, dice: random.Random) -> None:
    """One directory of many names; contents end just before and just behind the places where the layout changes."""
    where.mkdir()
    sizes = [0, 1, 59, 60, 61, 155, 159, 160, 161, 350, 1023, 1024, 1025, 4095, 4096, 4097, 12_288, 12_289, 20_000]
    for number in range(ODD_FILES):
        path = where / os.fsdecode(_name(dice, number))
        path.write_bytes(dice.randbytes(sizes[number % len(sizes)]))
        if number % 7 == 0:
            time = dice.randrange(-(2**31), 2**34 - 2**31) * 10**9 + dice.randrange(10**9)
            os.utime(path, ns=(time, time))
        if number % 5 == 0:
            os.chown(path, dice.randrange(2**32 - 1), dice.randrange(2**32 - 1))


def _maps(where: Path, dice: random.Random) -> None:
    """Files whose blocks lie in many pieces, with holes, and with space that was never written."""
    where.mkdir()
    with (where / "pieces").open("wb") as file:  # one block in two, so that the extents need a tree
        for piece in range(1500):
            file.seek(piece * 8192)
            file.write(dice.randbytes(1024))
            if piece % 100 == 0:
                os.fsync(file.fileno())
    with (where / "reserved").open("wb") as file:
        file.write(b"written")
        _fallocate(file.fileno(), 100_000, 300_000)
        file.seek(200_000)
        file.write(b"written in the middle of what was not")
    with (where / "punched").open("wb") as file:
        file.write(dice.randbytes(100_000))
        _punch(file.fileno(), 20_000, 40_000)
    with (where / "far").open("wb") as file:
        file.seek((1 << 28) + 4097)
        file.write(b"far from the start, through all levels of a block map of 1 KiB blocks")


def _fallocate(fd: int, offset: int, length: int) -> None:
    try:
        os.posix_fallocate(fd, offset, length)
    except OSError:  # no extents, no reserved space
        os.ftruncate(fd, offset + length)


def _punch(fd: int, offset: int, length: int) -> None:
    command = ["fallocate", "--punch-hole", f"--offset={offset}", f"--length={length}", f"/proc/self/fd/{fd}"]
    subprocess.run(command, check=False, capture_output=True, pass_fds=[fd])


def _attributes(where: Path, dice: random.Random) -> None:
    """Every name space; values that fit into an inode, into a block, and not at all; ACLs; shared blocks."""
    where.mkdir()
    for number in range(40):
        path = where / f"file{number}"
        path.touch()
        for attribute in range(number % 6):
            os.setxattr(path, f"user.name{attribute}", dice.randbytes(number * 3))
    for size in (3000, 20_000):  # only large blocks, or ea_inode, take these
        (where / f"large{size}").touch()
        with contextlib.suppress(OSError):
            os.setxattr(where / f"large{size}", "user.large", dice.randbytes(size))
    twins = dice.randbytes(600)
    for name in ("twin1", "twin2"):  # ext4 shares blocks of equal attributes
        (where / name).touch()
        os.setxattr(where / name, "user.twin", twins)
        os.setxattr(where / name, "user.empty", b"")
    (where / "link").symlink_to("file0")
    os.setxattr(where / "link", "trusted.link", b"links too", follow_symlinks=False)
    everybody = 0xFFFFFFFF
    entries = [(1, 6, everybody), (2, 7, 70_000), (4, 4, everybody), (0x10, 7, everybody), (0x20, 0, everybody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    (where / "shared").mkdir()
    for kind in ("access", "default"):
        os.setxattr(where / "shared", f"system.posix_acl_{kind}", acl)
    (where / "inherits").touch()
    os.setxattr(where / "inherits", "system.posix_acl_access", acl)
    os.setxattr(where / "inherits", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))


def _deep(top: Path) -> None:
    """A path longer than PATH_MAX."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for level in range(DEEP):
            os.mkdir(f"rather-deep-{level:05}", dir_fd=fd)
            inner = os.open(f"rather-deep-{level:05}", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    finally:
        os.close(fd)


def _big(path: Path) -> None:
    """One sparse file of more than 4 GiB, with data before, at and behind every power of two that matters."""
    with path.open("wb") as file:
        for offset in (0, (1 << 31) - 5, (1 << 32) - 5, (1 << 32) + 4096, BIG - 9):
            file.seek(offset)
            file.write(b"some data")
