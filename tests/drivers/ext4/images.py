"""Images: what mkfs is told for each, how they are made, and how they are opened."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from tests.drivers.ext4.populate import populate
from tests.support.mounts import loop_mounted

MIB = 1 << 20

#: name → options of mke2fs. "Today and yesterday": each layout that a filesystem met in the wild can have.
RECIPES: dict[str, str] = {
    "ext2": "-t ext2 -b 4096",
    "ext2-1k-rev0": "-t ext2 -r 0 -b 1024 -O none",
    "ext3": "-t ext3 -b 4096",
    "ext3-1k-128": "-t ext3 -b 1024 -I 128 -O ^dir_index,^filetype",
    "ext4": "-t ext4 -b 4096",
    "ext4-1k": "-t ext4 -b 1024",
    "ext4-2k": "-t ext4 -b 2048 -O ^flex_bg",
    "ext4-inline": "-t ext4 -b 4096 -I 256 -O inline_data",
    "ext4-inline-1k": "-t ext4 -b 1024 -I 1024 -O inline_data",
    "ext4-no-extents": "-t ext4 -b 4096 -O ^extent,^64bit",
    "ext4-64bit-meta_bg": "-t ext4 -b 1024 -O 64bit,meta_bg,^resize_inode -E packed_meta_blocks=0",
    "ext4-32bit": "-t ext4 -b 4096 -O ^64bit,^metadata_csum,uninit_bg",
    "ext4-large_dir": "-t ext4 -b 1024 -O large_dir,ea_inode",
    "ext4-bigalloc": "-t ext4 -b 4096 -C 16384 -O bigalloc",
    "ext4-bigalloc-1k": "-t ext4 -b 1024 -C 8192 -O bigalloc,^has_journal",
    "ext4-ea_inode": "-t ext4 -b 4096 -O ea_inode",
    "ext4-everything": "-t ext4 -b 4096 -I 512 -O sparse_super2,stable_inodes,encrypt,metadata_csum_seed,large_dir,inline_data,ea_inode",
    "ext4-nothing": "-t ext4 -b 1024 -I 128 -O ^metadata_csum,^64bit,^flex_bg,^dir_index,^huge_file,^dir_nlink,^extra_isize,^sparse_super,^resize_inode",
    "ext4-sparse_super2": "-t ext4 -b 1024 -O sparse_super2,^resize_inode",
    "ext4-orphan_file": "-t ext4 -b 4096 -O orphan_file,fast_commit,large_dir",
    "ext4-tea": "-t ext4 -b 1024",
    "ext4-legacy-hash": "-t ext4 -b 2048 -O ^metadata_csum",
    "ext4-unsigned-hash": "-t ext4 -b 1024 -O ^64bit",
    "ext4-many-groups": "-t ext4 -b 1024 -g 1024 -G 4 -I 1024",
}  # fmt: skip

#: What is done to them before they are filled.
BEFORE = {
    "ext4-tea": ["tune2fs", "-E", "hash_alg=tea"],
    "ext4-legacy-hash": ["tune2fs", "-E", "hash_alg=legacy"],
    "ext4-unsigned-hash": ["debugfs", "-w", "-R", "ssv flags 2"],
}

#: What tune2fs does at the end: features that not every kernel can write to, or with which it waits (mmp).
AFTERWARDS = {"ext4-everything": "-O quota,project,verity,mmp"}


def mke2fs(path: Path, options: str, size: int, *more: str) -> Path:
    """Make an empty filesystem of *size* bytes in the sparse file *path*."""
    with path.open("wb") as file:
        file.truncate(size)
    lazy = [] if "lazy_itable_init" in options else ["-E", "lazy_itable_init=0"]
    words = ["mke2fs", "-q", "-F", *lazy, *options.split(), *more, os.fspath(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
    return path


def full_image(directory: Path, name: str) -> Path:
    """Make the image of recipe *name*, filled through the kernel's mount (needs root and loop)."""
    path = mke2fs(directory / f"{name}.img", RECIPES[name], 96 * MIB, "-N", "8192")
    if name in BEFORE:
        subprocess.run([*BEFORE[name], path], check=True, capture_output=True)
    point = directory / f"{name}.rw"
    point.mkdir()
    with loop_mounted(path, point, options="rw,loop"):
        populate(point)
    if name in AFTERWARDS:
        subprocess.run(["tune2fs", *AFTERWARDS[name].split(), path], check=True, capture_output=True)
    return path


def small_tree(top: Path) -> Path:
    """Make a tree of every kind of object that an ordinary user can make, to be copied by mke2fs -d."""
    top.mkdir()
    (top / "file").write_bytes(b"contents\n" * 1000)
    (top / "short").write_bytes(b"in the inode, perhaps")
    (top / "again").hardlink_to(top / "file")
    (top / "fast").symlink_to("file")
    (top / "slow").symlink_to("s" * 120)
    os.mkfifo(top / "fifo")
    for number in range(6):
        below = top / f"directory-{number}" / "inner"
        below.mkdir(parents=True)
        for more in range(12 * number):
            (below / f"entry-{more}-{'n' * more}").write_bytes(b"%d" % more * more)
    with (top / "sparse").open("wb") as file:
        for at in range(0, 60, 3):
            os.pwrite(file.fileno(), b"piece", at * 8192)
    with contextlib.suppress(OSError):
        os.setxattr(top / "file", "user.small", b"small")
        os.setxattr(top / "short", "user.large", b"L" * 700)
    return top


def small_image(directory: Path, name: str, options: str) -> Path:
    """Make an image of 4 MiB with :func:`small_tree` in it, without any right: by mke2fs -d."""
    tree = directory / "tree"
    if not tree.exists():
        small_tree(tree)
    return mke2fs(directory / f"{name}.img", options, 4 * MIB, "-N", "512", "-d", os.fspath(tree))


@contextlib.contextmanager
def served(path: Path, *, offset: int = 0, size: int | None = None, check: bool = True) -> Iterator[Ext4Filesystem]:
    """Open the image at *path* with our driver."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Ext4Filesystem(fd, offset=offset, size=size, check=check)
    finally:
        os.close(fd)
