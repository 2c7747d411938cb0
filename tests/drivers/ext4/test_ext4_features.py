"""Odd but sound: what few filesystems have, set by debugfs where nothing else makes it, and shown as the kernel shows it."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.drivers.ext4.htree import hash_version
from fuservice.errors import ImageError
from fuservice.fuse.filesystem import ROOT_NODE
from tests.drivers.ext4.images import MIB, mke2fs, served, small_tree
from tests.drivers.ext4.test_ext4_damage import debugfs, number
from tests.drivers.ext4.view import Mounted, Served, View, differences, errors, survey
from tests.support.mounts import loop_mounted

pytestmark = pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")


def compared(image: Path) -> tuple[View, View]:
    """Return what both show of *image*, which must be the same."""
    point = image.parent / "kernel"
    point.mkdir(exist_ok=True)
    with served(image) as filesystem:
        ours = survey(Served(filesystem))
    with loop_mounted(image, point):
        theirs = survey(Mounted(os.fspath(point)))
    assert differences(ours, theirs) == []
    return ours, theirs


@pytest.fixture
def image(tmp_path: Path) -> Path:
    small_tree(tmp_path / "tree")
    return mke2fs(tmp_path / "image", "-t ext4 -b 1024 -I 256", 8 * MIB, "-d", os.fspath(tmp_path / "tree"))


def test_blocks_counted_in_blocks(image: Path) -> None:
    """huge_file: a count of blocks beyond 2^32 sectors is in blocks, if the flag says so; beyond that it has 48 bits."""
    ino = number(image, "/file")
    before = compared(image)[0][b"/file"]["blocks"]
    debugfs(image, f"sif <{ino}> flags 0xc0000", f"sif <{ino}> blocks {before}")
    assert compared(image)[0][b"/file"]["blocks"] == 2 * int(str(before))
    debugfs(image, f"sif <{ino}> blocks_hi 3")
    assert int(str(compared(image)[0][b"/file"]["blocks"])) > 3 << 32


@pytest.mark.parametrize("first", [11, 12, 13, 30])
def test_first_ordinary_inode(image: Path, first: int) -> None:
    """No name may lead below it: with 12, lost+found is EIO."""
    debugfs(image, f"ssv first_ino {first}")
    ours, _theirs = compared_with_errors(image)
    assert bool(errors(ours)) == (first > 11)


def compared_with_errors(image: Path) -> tuple[View, View]:
    """Return what both show of *image*; where one has an error the other has one, too."""
    point = image.parent / "kernel"
    point.mkdir(exist_ok=True)
    with served(image) as filesystem:
        ours = survey(Served(filesystem))
    with loop_mounted(image, point):
        theirs = survey(Mounted(os.fspath(point)))
    assert differences(ours, theirs, forgiving=True) == []
    assert {line.rsplit(":", 1)[0] for line in errors(ours)} == {line.rsplit(":", 1)[0] for line in errors(theirs)}
    return ours, theirs


def test_an_external_journal(image: Path) -> None:
    """It is not looked at; the kernel has to be told so."""
    debugfs(
        image, "ssv journal_inum 0", "ssv journal_dev 0x700", "ssv journal_uuid 01234567-89ab-cdef-0123-456789abcdef"
    )
    compared(image)
    debugfs(image, "feature needs_recovery")
    compared(image)
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert any("not cleanly unmounted" in line for line in Ext4Filesystem(fd).volume.warnings)
        with pytest.raises(ImageError, match="the journal is not in the image"):
            Ext4Filesystem(fd, recover=True)
    finally:
        os.close(fd)


def test_more_links_than_can_be_counted(image: Path) -> None:
    """dir_nlink: a directory with too many below it has one link."""
    debugfs(image, "sif /directory-1 links_count 1", "sif /directory-2 links_count 65000")
    ours, _theirs = compared(image)
    assert [ours[b"/directory-%d" % at]["nlink"] for at in (1, 2)] == [1, 65_000]


@pytest.mark.parametrize(
    "options",
    ["-t ext4 -b 1024 -O ^extent,^64bit", "-t ext3 -b 1024", "-t ext4 -b 4096 -I 512 -O inline_data,^extent,^64bit"],
)
def test_the_flag_of_inline_data_without_a_place_for_them(options: str, tmp_path: Path) -> None:
    """It says nothing then: the data are in blocks."""
    small_tree(tmp_path / "tree")
    image = mke2fs(tmp_path / "image", options, 8 * MIB, "-d", os.fspath(tmp_path / "tree"))
    debugfs(image, *(f"sif /{name} flags 0x10000000" for name in ("file", "sparse", "slow", "directory-5")))
    view = compared(image)[0]
    assert view[b"/file"]["data"] != view[b"/sparse"]["data"]
    assert view[b"/directory-5"]["names"]


def test_a_small_directory_that_says_it_is_large(tmp_path: Path) -> None:
    """What it has in the inode is found, whatever its size."""
    small_tree(tmp_path / "tree")
    image = mke2fs(tmp_path / "image", "-t ext4 -I 512 -O inline_data", 8 * MIB, "-d", os.fspath(tmp_path / "tree"))
    debugfs(image, "sif /directory-1 size 0xffffffff")
    assert b"/directory-1/inner" in compared_with_errors(image)[0]


@pytest.mark.parametrize("size", [1024, 1025, 4097, 1 << 31, (1 << 63) - 1])
def test_links_that_say_they_are_longer_than_their_block(image: Path, size: int) -> None:
    debugfs(image, f"sif /slow size {size}")
    assert len(bytes(compared_with_errors(image)[0][b"/slow"]["link"])) == 120  # type: ignore[call-overload]


def test_a_link_with_a_large_attribute(tmp_path: Path) -> None:
    """ea_inode: what others hold is counted among its blocks, and yet its target is in the inode."""
    image = mke2fs(tmp_path / "image", "-t ext4 -b 4096 -O ea_inode", 16 * MIB)
    (tmp_path / "rw").mkdir()
    with loop_mounted(image, tmp_path / "rw", options="rw,loop") as point:
        for length in (1, 59, 60, 300):
            (point / f"link-{length}").symlink_to("t" * length)
            os.setxattr(point / f"link-{length}", "trusted.large", bytes(20_000), follow_symlinks=False)
    view = compared(image)[0]
    assert errors(view) == []
    assert [len(bytes(view[b"/link-%d" % length]["link"])) for length in (1, 59, 60, 300)] == [1, 59, 60, 300]  # type: ignore[call-overload]
    assert view[b"/link-1"]["blocks"]


def test_lost_and_found_as_it_is(image: Path) -> None:
    """It is a directory like any other: it may be away, or a file."""
    debugfs(image, "rmdir /lost+found", "write /dev/null /lost+found")
    assert compared(image)[0][b"/lost+found"]["size"] == 0
    debugfs(image, "rm /lost+found")
    assert b"/lost+found" not in compared(image)[0]


def test_the_root_as_it_is(image: Path) -> None:
    debugfs(image, "sif <2> mode 041750", "sif <2> uid 70000", "sif <2> gid 5", "sif <2> mtime @0x7fffffff")
    root = compared(image)[0][b""]
    assert (root["mode"], root["uid"], root["gid"], root["mtime_ns"]) == (0o41750, 70_000, 5, 0x7FFFFFFF * 10**9)


@pytest.mark.parametrize("uninit", ["-O ^metadata_csum,uninit_bg", ""])
def test_groups_that_nobody_has_used(uninit: str, tmp_path: Path) -> None:
    """Their inode tables and bitmaps may be anything on the disk."""
    image = mke2fs(tmp_path / "image", f"-t ext4 -b 1024 -g 1024 {uninit} -E lazy_itable_init=1", 16 * MIB)
    with image.open("r+b") as file:
        file.seek(1024 + 0x28)
        (per_group,) = struct.unpack("<I", file.read(4))
    ours, _theirs = compared(image)
    assert len(ours) == 2
    assert per_group


def test_an_index_of_four_levels(tmp_path: Path) -> None:
    """large_dir: root, two levels of index blocks, and leaves of two or three names each."""
    image = mke2fs(tmp_path / "image", "-t ext4 -b 1024 -O large_dir", 48 * MIB, "-N", "100")
    point = tmp_path / "rw"
    point.mkdir()
    names = [f"{number:05}" + "n" * 245 for number in range(32_000)]
    with loop_mounted(image, point, options="rw,loop"):
        (point / "many").mkdir()
        (point / "held").touch()
        for name in names:
            os.link(point / "held", point / "many" / name)
    with served(image) as filesystem:
        volume = filesystem.volume
        many = volume.inode(filesystem.lookup(ROOT_NODE, b"many").node)
        root = volume._directories._block(many, 0)  # nothing else says so
        assert (hash_version(root), root[30]) == (1, 2)  # half_md4, and so many levels of index blocks
        for name in names[::997]:
            assert filesystem.lookup(many.ino, name.encode()).attr.nlink == len(names) + 1
        ours = survey(Served(filesystem))
    (tmp_path / "kernel").mkdir()
    with loop_mounted(image, tmp_path / "kernel"):
        assert differences(ours, survey(Mounted(os.fspath(tmp_path / "kernel")))) == []
    assert subprocess.run(["e2fsck", "-fn", image], check=False, capture_output=True).returncode == 0
