"""The options that mount(8) users know: another superblock, minixdf, and those that are taken and do nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuservice.drivers.ext4 import Ext4
from fuservice.errors import ImageError, UsageError
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import MIB, mke2fs, small_tree
from tests.drivers.ext4.view import Mounted, Served, View, differences, survey
from tests.support.mounts import loop_mounted

pytestmark = pytest.mark.needs("e2fsprogs")


def ours(image: Path, **options: str | None) -> tuple[View, list[str]]:
    """Return what the driver shows of *image* with *options*, and what it says in the log."""
    said: list[str] = []
    with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        filesystem = Ext4(said.append).load(fd, options)
        return survey(Served(filesystem)), said


def theirs(image: Path, options: str = "") -> View:
    point = image.parent / "kernel"
    point.mkdir(exist_ok=True)
    with loop_mounted(image, point, options=f"ro,loop,noload{options}"):
        return survey(Mounted(os.fspath(point)))


#: Options of mke2fs, and where its first copy of the superblock is, in KiB.
COPIES = [
    ("-t ext4 -b 1024", 8193),
    ("-t ext4 -b 4096", 32768 * 4),
    ("-t ext2 -b 2048", 16384 * 2),
    ("-t ext4 -b 1024 -O meta_bg,^resize_inode", 8193),
    ("-t ext4 -b 1024 -O ^metadata_csum,^64bit,sparse_super2", 8193),
]


@pytest.mark.needs("root", "loop", "ext4")
@pytest.mark.parametrize(("options", "copy"), COPIES)
def test_another_superblock(options: str, copy: int, tmp_path: Path) -> None:
    """The first one and what follows it are gone."""
    small_tree(tmp_path / "tree")
    image = mke2fs(tmp_path / "image", options, 140 * MIB, "-N", "8192", "-d", os.fspath(tmp_path / "tree"))
    whole, _ = ours(image)
    with image.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
        if "meta_bg" not in options:  # there, each group of groups has its own
            file.seek(4096 if "4096" in options else 2048)
            file.write(bytes(1024))
    with pytest.raises(ImageError, match="magic number"):
        ours(image)
    with pytest.raises(ImageError, match="magic number"):
        ours(image, sb=str(copy + 1))
    shown, _ = ours(image, sb=str(copy))
    assert shown.keys() == whole.keys()
    assert differences(shown, theirs(image, f",sb={copy}")) == []


@pytest.mark.needs("root", "loop", "ext4")
@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext4 -b 4096 -C 16384 -O bigalloc", "-t ext2 -b 4096"])
def test_minixdf(options: str, tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", options, 32 * MIB)
    minix, usual = ours(image, minixdf=None)[0], ours(image, bsddf=None)[0]
    assert differences(minix, theirs(image, ",minixdf")) == []
    assert differences(usual, theirs(image, ",bsddf")) == []
    assert minix[b""]["space"] != usual[b""]["space"]


def test_what_has_no_effect(tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", "-t ext4 -b 1024", 8 * MIB)
    usual, nothing = ours(image)
    assert nothing == []
    shown, said = ours(image, noload=None, errors="panic", recover=None)
    assert shown == usual
    assert said == ["errors=panic has no effect: nothing is written, what is damaged is EIO, the rest is served"]


@pytest.mark.parametrize("value", ["", "-1", "x", "1" * 30])
def test_a_superblock_that_is_nowhere(value: str, tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", "-t ext4 -b 1024", 8 * MIB)
    with pytest.raises(UsageError, match="option sb="):
        ours(image, sb=value)
    with pytest.raises(ImageError, match="too short"):
        ours(image, sb="1000000")
