"""The hash index of directories: the hashes themselves, directories of 100,000 names, and an index that is damaged."""

from __future__ import annotations

import errno
import os
import random
import re
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4 import htree
from fuservice.drivers.ext4.data import find
from fuservice.drivers.ext4.dirhash import dirhash
from fuservice.fuse.filesystem import ROOT_NODE
from tests.drivers.ext4.images import MIB, mke2fs, served
from tests.drivers.ext4.superblocks import superblock
from tests.drivers.ext4.view import Mounted, Served, differences, survey
from tests.support.mounts import loop_mounted

if TYPE_CHECKING:
    from fuservice.drivers.ext4.device import Device
    from fuservice.drivers.ext4.filesystem import Ext4Filesystem

MANY = 100_000


@pytest.mark.needs("e2fsprogs")
def test_the_hashes_are_those_of_debugfs() -> None:
    chance, seed = random.Random(7), uuid.UUID(int=random.Random(8).getrandbits(128))
    names = ["n" + "".join(chance.choices("abcXYZ019.-_~", k=chance.randrange(1, 250))) for _ in range(100)]
    names += ["n" + "".join(chance.choices("aé日ü", k=chance.randrange(1, 80))) for _ in range(100)]
    asked = [(name, version, signed) for name in names for version in range(3) for signed in (True, False)]
    words = "".join(f"dx_hash -h {v if signed else v + 3} -s {seed} {name}\n" for name, v, signed in asked)
    told = subprocess.run(["debugfs", "-f", "-"], input=words, capture_output=True, text=True, check=True).stdout
    theirs = [(int(a, 16), int(b, 16)) for a, b in re.findall(r"is 0x(\w+) \(minor 0x(\w+)\)", told)]
    assert [dirhash(name.encode(), v, seed.bytes, signed=signed) for name, v, signed in asked] == theirs
    with pytest.raises(OSError, match="unknown version 3"):
        dirhash(b"name", 3, seed.bytes, signed=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give an image whose directory "many" has 100,000 names, made by the kernel, in 1 KiB blocks: an index of three levels."""
    directory = tmp_path_factory.mktemp("many")
    image = mke2fs(directory / "image", "-t ext4 -b 1024 -O large_dir", 64 * MIB, "-N", "1000")
    point = directory / "rw"
    point.mkdir()
    with loop_mounted(image, point, options="rw,loop"):
        (point / "many").mkdir()
        for holder in range(3):  # an inode has 65,000 links at most
            (point / f"held-{holder}").touch()
        for number in range(MANY):
            os.link(point / f"held-{number % 3}", point / "many" / name_of(number))
    yield image
    image.unlink()


def name_of(number: int) -> str:
    return f"{number:05}" + "é-ü"[: number % 4] + "x" * (number % 40)


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
def test_a_hundred_thousand_names(many: Path, tmp_path: Path) -> None:
    """As the kernel shows them; look-ups by the index and by the dictionary that follows it give the same."""
    with served(many) as filesystem, loop_mounted(many, made(tmp_path / "kernel")) as point:
        assert differences(survey(Served(filesystem)), survey(Mounted(str(point)))) == []
        assert filesystem.volume.complaints == []
    with served(many) as filesystem:
        large = filesystem.lookup(ROOT_NODE, b"many").node
        began = time.process_time()
        found = [filesystem.lookup(large, name_of(number).encode()).node for number in range(0, MANY, 40)]
        print(f"{len(found)} look-ups by the index: {time.process_time() - began:.2f} s")
        for absent in (b"", b"x", b"1", b"\xff" * 255):
            assert missing(filesystem, large, absent) == errno.ENOENT
        held = [filesystem.lookup(ROOT_NODE, b"held-%d" % holder).node for holder in range(3)]
        assert found == [held[number % 3] for number in range(0, MANY, 40)]


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
def test_only_the_blocks_of_the_index_are_read(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look-up in it reads less than one in a hundred of its blocks."""
    with served(many) as filesystem:
        large = filesystem.lookup(ROOT_NODE, b"many").node
        blocks = filesystem.getattr(large).size >> 10
        device = filesystem.volume.metadata.device
        reads: list[int] = []
        plain = type(device).read

        def counted(device: Device, position: int, length: int) -> bytes:
            reads.append(length)
            return plain(device, position, length)

        monkeypatch.setattr(type(device), "read", counted)
        assert filesystem.lookup(large, name_of(77_777).encode()).attr.nlink > 2
        assert sum(reads) >> 10 < blocks / 100


#: Byte of the root block, and what is written there: limit and count, levels, the first entry's block.
DAMAGE = {"count": (32, b"\xff\xff\xff\xff"), "levels": (30, b"\7"), "block": (36, b"\xff\xff\xff\7")}


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_done_without(many: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "--sparse=always", many, copy], check=True)
    with served(many) as filesystem:
        directory = filesystem.volume.inode(filesystem.lookup(ROOT_NODE, b"many").node)
        _start, _end, block = find(filesystem.volume.metadata, directory, 0)
    at, value = DAMAGE[damage]
    with copy.open("r+b") as file:
        os.pwrite(file.fileno(), value, (block << 10) + at)
    with served(copy) as filesystem:
        for number in range(0, MANY, 500):
            assert filesystem.lookup(directory.ino, name_of(number).encode()).attr.nlink > 2
        assert missing(filesystem, directory.ino, b"absent") in (errno.ENOENT, errno.EIO)
        assert any("is searched without its index" in line for line in filesystem.volume.complaints)


def index(*entries: tuple[int, int], version: int = 0, length: int = 8, levels: int = 0, limit: int = 123) -> bytes:
    """Return the root of an index, of 1 KiB."""
    info = struct.pack("<24xIBBBBHHI", 0, version, length, levels, 0, limit, len(entries), entries[0][1])
    return (info + b"".join(struct.pack("<II", *entry) for entry in entries[1:])).ljust(1024, b"\0")


def test_names_of_one_hash_in_several_blocks() -> None:
    wanted, _minor = dirhash(b"name", 0, bytes(16), signed=True)
    root = index((0, 1), (wanted, 2), (wanted | 1, 3), (wanted | 1, 4), (wanted + 2, 5))
    assert htree.leaves(lambda _: root, superblock(), b"name") == [2, 3, 4]
    assert htree.leaves(lambda _: index((0, 7)), superblock(), b"name") == [7]


@pytest.mark.parametrize(
    "bad",
    [
        index((0, 1), version=3),
        index((0, 1), length=16),
        index((0, 1), levels=2),
        index((0, 1), limit=125),
        index((0, 1), (1, 1), limit=1),
        index(*[(dirhash(b"name", 0, bytes(16), signed=True)[0], 1)] * 123, levels=1),  # each leads to all, again
    ],
)
def test_an_index_that_cannot_be(bad: bytes) -> None:
    with pytest.raises(OSError, match="hash index") as caught:
        htree.leaves(lambda block: bad if block in (0, 1) else b"", superblock(), b"name")
    assert caught.value.errno == errno.EIO


def missing(filesystem: Ext4Filesystem, directory: int, name: bytes) -> int:
    """Return the errno of a look-up that must fail."""
    with pytest.raises(OSError, match=r"\w") as caught:
        filesystem.lookup(directory, name)
    return caught.value.errno or 0


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory
