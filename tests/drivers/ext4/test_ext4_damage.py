"""One damage at a time, made with debugfs or by hand in a sound image: the object says EIO, and the rest is served."""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4 import Ext4
from fuservice.fuse.filesystem import ROOT_NODE
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import served, small_image
from tests.drivers.ext4.view import Errno, Served, errors, survey

if TYPE_CHECKING:
    from fuservice.drivers.ext4.filesystem import Ext4Filesystem

pytestmark = pytest.mark.needs("e2fsprogs")

Fresh = Callable[[str], Path]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("sound")
    options = {"ext2": "-t ext2 -b 1024", "ext4": "-t ext4 -b 1024 -I 256 -O ^metadata_csum,large_dir"}
    return {name: small_image(directory, name, option) for name, option in options.items()}


@pytest.fixture
def fresh(sound: dict[str, Path], tmp_path: Path) -> Fresh:
    """Return what makes a copy of a sound image."""
    return lambda name: Path(shutil.copy(sound[name], tmp_path / f"{name}.img"))


def debugfs(image: Path, *commands: str) -> str:
    words = ["debugfs", "-w", "-f", "-", os.fspath(image)]
    done = subprocess.run(words, input="\n".join(commands), capture_output=True, text=True, check=True)
    return done.stdout


def number(image: Path, path: str) -> int:
    found = re.search(r"Inode: (\d+)", debugfs(image, f"stat {path}"))
    assert found
    return int(found[1])


def first_block(image: Path, path: str, block_size: int = 1024) -> int:
    """Return the first block of *path* as a position in the image."""
    found = re.search(r"^(\d+)", debugfs(image, f"blocks {path}").partition("\n")[2])
    assert found
    return int(found[1]) * block_size


def poke(image: Path, position: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(position)
        file.write(data)


def node_of(filesystem: Ext4Filesystem, path: bytes) -> int:
    node = ROOT_NODE
    for name in path.split(b"/"):
        node = filesystem.lookup(node, name).node
    return node


def broken(image: Path) -> list[str]:
    """Return what is not served, within bounds of time."""
    began = time.monotonic()
    with served(image) as filesystem:
        view = survey(Served(filesystem))
    assert time.monotonic() - began < 10
    assert view[b"/short"]["data"]  # the rest is served
    return errors(view)


@pytest.mark.parametrize("which", ["IND", "DIND", "TIND"])
def test_a_block_of_pointers_that_points_to_itself(which: str, fresh: Fresh) -> None:
    image = fresh("ext2")
    own = 2000
    debugfs(image, f"sif /file block[{which}] {own}", "sif /file size 4000000000")
    poke(image, own * 1024, struct.pack("<256I", *[own] * 256))
    with served(image) as filesystem:
        node = node_of(filesystem, b"file")
        buffer = memoryview(bytearray(1 << 20))
        where = {"IND": 12, "DIND": 12 + 256, "TIND": 12 + 256 + 65_536}[which] * 1024
        assert bytes(filesystem.read(node, 0, where, buffer)[:4]) == struct.pack("<I", own)
        assert filesystem.lseek(node, 0, 0, os.SEEK_DATA) == 0


def test_pointers_outside_the_filesystem(fresh: Fresh) -> None:
    image = fresh("ext2")
    debugfs(image, "sif /file block[2] 4096", "sif /directory-5/inner/entry-20-nnnnnnnnnnnnnnnnnnnn block[0] 1")
    found = broken(image)
    assert {line.split(":")[0] for line in found} == {
        "b'/file'", "b'/again'", "b'/directory-5/inner/entry-20-nnnnnnnnnnnnnnnnnnnn'",
    }  # fmt: skip


def extent_node(depth: int, *entries: tuple[int, int]) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, len(entries), 84, depth, 0) + b"".join(
        struct.pack("<IIHH", a, b, 0, 0) for a, b in entries
    )


def test_an_extent_node_below_itself(fresh: Fresh) -> None:
    image = fresh("ext4")
    own = 2000
    words = struct.unpack(
        "<15I", (struct.pack("<HHHHI", 0xF30A, 1, 4, 5, 0) + struct.pack("<IIHH", 0, own, 0, 0)).ljust(60, b"\0")
    )
    debugfs(
        image,
        *(f"sif /file block[{at}] {word}" for at, word in enumerate(words[:12])),
        f"sif /file block[IND] {words[12]}",
    )
    poke(image, own * 1024, extent_node(5, (0, own)))
    assert [line.split(":")[1:] for line in broken(image)] == [[" map", " EIO"], [" data", " EIO"]] * 2
    poke(image, own * 1024, extent_node(4, (0, own)))
    assert len(broken(image)) == 4


def test_a_directory_of_a_pebibyte(fresh: Fresh) -> None:
    image = fresh("ext4")
    debugfs(
        image,
        f"sif /directory-3/inner size {1 << 50}",
        f"sif /directory-2/inner size {1 << 62}",
    )
    found = broken(image)
    assert {line for line in found if "listing" in line} == {
        f"b'/directory-{name}': listing: EIO" for name in ("3/inner", "2/inner")
    }  # fmt: skip
    with served(image) as filesystem:
        inner = node_of(filesystem, b"directory-3/inner")
        assert filesystem.lookup(inner, b"entry-0-").attr.size == 0
        with pytest.raises(OSError, match="more than the filesystem: whether the directory had that name"):
            filesystem.lookup(inner, b"not there")
        assert "more than the filesystem" in filesystem.volume.complaints[0]


def test_a_directory_made_of_the_same_blocks_over_and_over(fresh: Fresh) -> None:
    """An extent tree cannot repeat a node, but its extents can repeat blocks: a directory is not longer than the filesystem."""
    image = fresh("ext4")
    block = first_block(image, "/directory-5/inner") // 1024
    leaf = struct.pack("<HHHHI", 0xF30A, 84, 84, 0, 0) + b"".join(
        struct.pack("<IHHI", n * 1000, 1000, 0, block) for n in range(84)
    )
    poke(image, 2000 * 1024, leaf)
    root = (struct.pack("<HHHHI", 0xF30A, 1, 4, 1, 0) + struct.pack("<IIHH", 0, 2000, 0, 0)).ljust(60, b"\0")
    words = struct.unpack("<15I", root)
    debugfs(
        image,
        *(f"sif /directory-5/inner block[{at}] {word}" for at, word in enumerate(words[:12])),
        f"sif /directory-5/inner size {84_000 << 10}",
    )
    found = broken(image)
    assert "b'/directory-5/inner': listing: EIO" in found


@pytest.mark.parametrize(
    ("at", "data", "kept"),
    [
        (24 + 8, b"en/ry", 11),
        (24 + 4, b"\0\0", 0),
        (24 + 4, b"\xff\xff", 0),
        (24 + 6, b"\xff", 0),
        (24, b"\xff\xff\xff\xff", 0),
    ],
)
def test_an_entry_that_cannot_be(at: int, data: bytes, kept: int, fresh: Fresh) -> None:
    image = fresh("ext4")
    poke(image, first_block(image, "/directory-1/inner") + at, data)
    with served(image) as filesystem:
        inner = node_of(filesystem, b"directory-1/inner")
        names, failure = Served(filesystem).names(inner)
        assert failure == errno.EIO
        assert all(b"/" not in name for name, _ino in names)
        assert len(names) == kept
        with pytest.raises(OSError, match="whether the directory had that name") as caught:
            filesystem.lookup(inner, b"nothing")
        assert caught.value.errno == errno.EIO
    assert "b'/directory-1/inner': listing: EIO" in broken(image)


def test_names_that_lead_back(fresh: Fresh) -> None:
    image = fresh("ext4")
    debugfs(
        image,
        "ln /directory-1 /directory-1/inner/up",
        "ln / /directory-2/inner/root",
        "ln /directory-3/inner /directory-3/inner/self",
    )
    found = broken(image)
    assert found == ["b'/directory-3/inner/self': found: EIO", "b'/directory-2/inner/root': found: EIO"]


def test_wild_inode_numbers(fresh: Fresh) -> None:
    image = fresh("ext4")
    debugfs(image, *(f"ln <{ino}> /directory-1/inner/to-{ino}" for ino in (1, 3, 7, 8, 400)))
    found = broken(image)
    assert found == [f"b'/directory-1/inner/to-{ino}': found: EIO" for ino in (1, 3, 400, 7, 8)]


def test_attributes_that_cannot_be(fresh: Fresh) -> None:
    image = fresh("ext4")
    with served(image) as filesystem:
        if not filesystem.volume.inode(number(image, "/short")).file_acl:
            pytest.skip("the temporary directory's filesystem has no user attributes to copy")
        block = filesystem.volume.inode(number(image, "/short")).file_acl
        assert filesystem.getxattr(node_of(filesystem, b"short"), b"user.large") == b"L" * 700
    for at, data in (
        (0, b"\1"),
        (8, b"\2"),
        (32, b"\xff"),
        (34, b"\xff\xff"),
        (40, b"\xff\xff\xff\xff"),
        (36, b"\1"),
        (48, b"\0"),
    ):
        patched = Path(shutil.copy(image, image.with_name("patched.img")))
        poke(patched, block * 1024 + at, data)
        with served(patched) as filesystem:
            node = node_of(filesystem, b"short")
            with pytest.raises(OSError, match="attribute") as caught:
                filesystem.listxattr(node)
            assert caught.value.errno == errno.EIO
            assert bytes(filesystem.read(node, 0, 0, memoryview(bytearray(99)))) == b"in the inode, perhaps"


def test_links_that_cannot_be(fresh: Fresh) -> None:
    image = fresh("ext2")
    debugfs(image, "sif /fast size 60", "sif /slow size 1025")  # what the block has is the target, as for the kernel
    assert broken(image) == ["b'/fast': link: EIO"]
    debugfs(image, "sif /fast size 0", "sif /slow size 0")
    assert broken(image) == ["b'/fast': link: EIO", "b'/slow': link: EIO"]


def test_a_directory_that_ends_within_a_block(fresh: Fresh) -> None:
    """Its names are shown, and it is told that there may be more."""
    image = fresh("ext2")
    debugfs(image, "sif /directory-2/inner size 100")
    assert broken(image) == ["b'/directory-2/inner': listing: EIO"]


def test_an_inode_of_no_kind(fresh: Fresh) -> None:
    image = fresh("ext4")
    debugfs(image, "sif /fifo mode 0", "sif /slow links_count 0", "sif /directory-4/inner flags 0x40000000")
    found = broken(image)
    assert found == [f"b'/{name}': found: EIO" for name in ("fifo", "slow", "directory-4/inner")]


def test_a_group_without_its_inode_table(fresh: Fresh, tmp_path: Path) -> None:
    image = small_image(tmp_path, "groups", "-t ext2 -b 1024 -g 1024")
    deep = number(image, "/directory-5/inner")
    group = (deep - 1) // (512 // 4)
    assert group > 0
    debugfs(image, f"set_bg {group} inode_table 999999")
    with served(image) as filesystem:
        view = survey(Served(filesystem))
        assert len(view) > 20
        assert Errno(errno.EIO) in [facts.get("found") for facts in view.values()]
        with pytest.raises(OSError, match=f"group {group}: its inode table would be blocks 999999"):
            filesystem.volume.inode(deep)


def test_a_needed_journal_is_a_warning(fresh: Fresh) -> None:
    image = fresh("ext4")
    debugfs(image, "feature needs_recovery")
    with served(image) as filesystem:
        assert errors(survey(Served(filesystem))) == []
    told: list[str] = []
    with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        survey(Served(Ext4(told.append).load(fd, {})))
    assert len(told) == 1
    assert told[0].startswith("not cleanly unmounted: showing it as it is on the disk (its journal was not replayed")


def test_an_image_that_shrinks_while_it_is_served(fresh: Fresh) -> None:
    image = fresh("ext2")
    with served(image) as filesystem:
        node = node_of(filesystem, b"file")
        os.truncate(image, 16_384)
        with pytest.raises(OSError, match="the image has shrunk") as caught:
            filesystem.read(node, 0, 0, memoryview(bytearray(9000)))
        assert caught.value.errno == errno.EIO
        assert filesystem.getattr(node).size == 9000
