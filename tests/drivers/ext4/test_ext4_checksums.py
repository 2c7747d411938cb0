"""Metadata checksums: the functions by known values, the structures by one flipped byte each, beside the kernel."""

from __future__ import annotations

import errno
import functools
import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4.crc16 import crc16
from fuservice.drivers.ext4.crc32c import MULTIPLE, crc32c
from fuservice.drivers.ext4.groups import descriptor_block
from fuservice.errors import ImageError
from tests.drivers.ext4.images import MIB, mke2fs, served, small_image
from tests.drivers.ext4.test_ext4_damage import debugfs, first_block, node_of, poke
from tests.drivers.ext4.view import Mounted, Served, View, differences, errors, survey
from tests.support.mounts import loop_mounted

if TYPE_CHECKING:
    from fuservice.drivers.ext4.filesystem import Ext4Filesystem

POLYNOMIAL = 0x11EDC6F41
ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and the next ones: RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_known_values(data: bytes, value: int) -> None:
    assert crc32c(ONES, data) ^ ONES == value


def test_crc16() -> None:
    assert crc16(0, b"123456789") == 0xBB3D
    assert crc16(crc16(0xFFFF, b"1234"), b"56789") == crc16(0xFFFF, b"123456789") == 0x4B37


def bitwise(register: int, data: bytes) -> int:
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register


def test_every_length_and_beginning() -> None:
    chance = random.Random(7)
    for length in [*range(4, 200), 1016, 1024, 4092, 65_524, 65_536]:
        data, register = chance.randbytes(length), chance.getrandbits(32)
        assert crc32c(register, data) == bitwise(register, data)


def test_the_polynomial_divides_the_multiple() -> None:
    rest = functools.reduce(lambda sum_, power: sum_ ^ 1 << power, MULTIPLE, 0)
    while rest.bit_length() > 32:
        rest ^= POLYNOMIAL << rest.bit_length() - 33
    assert rest == 0
    assert list(MULTIPLE) == sorted(MULTIPLE, reverse=True)


def flip(image: Path, position: int) -> None:
    """Turn one bit of the byte at *position*."""
    with image.open("rb") as file:
        file.seek(position)
        (byte,) = file.read(1)
    poke(image, position, bytes([byte ^ 1]))


def inode_at(image: Path, path: str) -> int:
    """Return the position of the inode of *path*."""
    told = re.search(r"located at block (\d+), offset (0x[0-9a-f]+)", debugfs(image, f"imap {path}"))
    assert told
    return int(told[1]) * 1024 + int(told[2], 16)


def block_of(image: Path, path: str, what: str) -> int:
    """Return the position of a block that debugfs tells of for *path*: "ETB0" (extents), "File ACL"."""
    told = debugfs(image, f"stat {path}").replace("\n", " ")
    _before, _colon, rest = told.partition(f"({what}):" if what == "ETB0" else f"{what}: ")
    return int(rest.split()[0].rstrip(",")) * 1024


#: What is damaged, where, what of it is EIO with checksums, and what the log would say.
DAMAGES: dict[str, tuple[Callable[[Path], int], list[str], str]] = {
    "inode": (
        lambda image: inode_at(image, "/fifo") + 0x84,
        ["b'/fifo': found: EIO"],
        r"inode \d+ in block \d+: its checksum is wrong",
    ),
    "extents": (
        lambda image: block_of(image, "/sparse", "ETB0") + 8,
        ["b'/sparse': map: EIO", "b'/sparse': data: EIO"],
        r"inode \d+, extent block \d+: its checksum is wrong",
    ),
    "directory": (
        lambda image: first_block(image, "/directory-1/inner") + 24 + 8,
        ["b'/directory-1/inner': listing: EIO"],
        r"directory \d+, block 0: its checksum is wrong",
    ),
    "directory tail": (
        lambda image: first_block(image, "/directory-1/inner") + 1024 - 12 + 7,
        ["b'/directory-1/inner': listing: EIO"],
        r"directory \d+, block 0: its checksum is wrong",
    ),
    "index": (
        lambda image: first_block(image, "/directory-5/inner") + 12 + 8 + 3,
        ["b'/directory-5/inner': listing: EIO"],
        r"directory \d+, block 0: its checksum is wrong",
    ),
    "attributes": (
        lambda image: block_of(image, "/short", "File ACL") + 1023,
        ["b'/short': xattrs: EIO"],
        r"inode \d+, attribute block \d+: its checksum is wrong",
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("checksums")
    kinds = {"with": "metadata_csum", "seed": "metadata_csum,metadata_csum_seed", "without": "^metadata_csum"}
    images = {name: small_image(directory, name, f"-t ext4 -b 1024 -I 256 -O {word}") for name, word in kinds.items()}
    large = directory / "large"
    large.write_bytes(b"L" * 700)
    for image in images.values():
        debugfs(image, "ea_rm /short user.large", f"ea_set -f {large} /short user.large")
        done = subprocess.run(["e2fsck", "-fyD", image], check=False, capture_output=True)
        assert done.returncode in (0, 1)
        assert "Flags: 0x81000" in debugfs(image, "stat /directory-5/inner")  # it has an index now
    return images


@pytest.fixture
def fresh(sound: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copy(sound[name], tmp_path / f"{name}.img"))


def view(image: Path, *, check: bool = True) -> tuple[View, list[str]]:
    with served(image, check=check) as filesystem:
        return survey(Served(filesystem)), filesystem.volume.complaints


@pytest.mark.needs("e2fsprogs")
@pytest.mark.parametrize("kind", ["with", "seed"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_flipped_byte(damage: str, kind: str, fresh: Callable[[str], Path]) -> None:
    image = fresh(kind)
    before, _ = view(image)
    assert errors(before) == []
    where, lost, _words = DAMAGES[damage]
    flip(image, where(image))
    after, _ = view(image)
    assert errors(after) == lost
    paths = {line.split(":")[0] for line in lost}
    assert differences({p: f for p, f in after.items() if repr(p) not in paths}, before, forgiving=True) == []
    assert errors(view(image, check=False)[0]) == []


@pytest.mark.needs("e2fsprogs")
@pytest.mark.parametrize("damage", DAMAGES)
def test_nobody_notices_where_there_are_no_checksums(damage: str, fresh: Callable[[str], Path]) -> None:
    image = fresh("without")
    flip(image, DAMAGES[damage][0](image))
    after, complaints = view(image)
    assert (errors(after), complaints) == ([], [])


@pytest.mark.needs("e2fsprogs")
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_words_name_inode_and_block(damage: str, fresh: Callable[[str], Path]) -> None:
    image = fresh("with")
    where, lost, words = DAMAGES[damage]
    flip(image, where(image))
    path = lost[0].split("'")[1].encode()
    with served(image) as filesystem, pytest.raises(OSError, match=words) as caught:
        ask(filesystem, path)
    assert caught.value.errno == errno.EIO


def ask(filesystem: Ext4Filesystem, path: bytes) -> None:
    node = node_of(filesystem, path[1:])
    filesystem.listxattr(node)
    if stat.S_ISDIR(filesystem.getattr(node).mode):
        filesystem.lookup(node, b"a name that is not there")
    filesystem.read(node, 0, 0, memoryview(bytearray(10)))


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize("kind", ["with", "without"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_beside_the_kernel(damage: str, kind: str, fresh: Callable[[str], Path], tmp_path: Path) -> None:
    """What the kernel refuses we refuse, and nothing else."""
    image = fresh(kind)
    flip(image, DAMAGES[damage][0](image))
    ours, _ = view(image)
    theirs = kernel_view(image, tmp_path)
    assert differences(ours, theirs, forgiving=True) == []
    print(f"{damage}, {kind}: we refuse {errors(ours)}, the kernel {errors(theirs)}")
    assert {line.rpartition(":")[0] for line in errors(ours)} == {line.rpartition(":")[0] for line in errors(theirs)}


def kernel_view(image: Path, directory: Path) -> View:
    point = directory / "kernel"
    point.mkdir()
    with loop_mounted(image, point):
        return survey(Mounted(os.fspath(point)))


@pytest.mark.needs("e2fsprogs")
@pytest.mark.parametrize("features", ["metadata_csum", "metadata_csum,^64bit", "^metadata_csum,uninit_bg"])
def test_a_descriptor_is_told_of_and_believed(features: str, tmp_path: Path) -> None:
    """As the kernel does in a read-only mount: what the descriptor leads to has checksums of its own."""
    image = small_image(tmp_path, "groups", f"-t ext4 -b 1024 -g 1024 -O {features}")
    before, complaints = view(image)
    assert complaints == []
    with served(image) as filesystem:
        superblock = filesystem.volume.superblock
        assert superblock.groups > 2
        block = descriptor_block(superblock, 0)
        flip(image, block * 1024 + superblock.desc_size + 0x10)  # of group 1: bg_used_dirs_count
        told: list[str] = []
    after, complaints = view(image)
    assert complaints == [f"group 1, descriptor in block {block}: its checksum is wrong"]
    assert differences(after, before) == []
    assert view(image, check=False)[1] == []
    with served(image) as filesystem:
        filesystem.volume.metadata.tell = told.append
        survey(Served(filesystem))
    assert told == complaints


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
def test_a_superblock_is_refused_as_by_the_kernel(fresh: Callable[[str], Path], tmp_path: Path) -> None:
    for kind, what in (("with", 0x78), ("with", 0x175), ("without", 0x78)):  # s_volume_name, s_checksum_type
        image = fresh(kind)
        flip(image, 1024 + what)
        if kind == "without":
            assert errors(view(image)[0]) == []
            continue
        with pytest.raises(ImageError, match=r"checksum is wrong .-o nocheck|of an unknown kind"):
            view(image)
        assert errors(view(image, check=False)[0]) == []
        with pytest.raises(subprocess.CalledProcessError):
            kernel_view(image, tmp_path)
        (tmp_path / "kernel").rmdir()


@pytest.mark.needs("e2fsprogs")
def test_a_root_that_is_damaged_is_refused(fresh: Callable[[str], Path]) -> None:
    image = fresh("with")
    flip(image, inode_at(image, "/") + 0x84)
    with pytest.raises(ImageError, match="the root directory cannot be read: inode 2 in block"):
        view(image)


@pytest.mark.needs("e2fsprogs")
def test_a_block_is_verified_once_while_it_is_remembered(
    fresh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fuservice.drivers.ext4 import checksums

    counted: list[int] = []

    def counting(register: int, data: bytes) -> int:
        counted.append(len(data))
        return crc32c(register, data)

    monkeypatch.setattr(checksums, "crc32c", counting)
    with served(fresh("with")) as filesystem:
        survey(Served(filesystem))
        first = len(counted)
        assert first > 200
        survey(Served(filesystem))
        assert len(counted) == first


@pytest.mark.needs("e2fsprogs")
@pytest.mark.parametrize("options", ["-b 2048 -I 128", "-b 4096 -I 1024", "-b 16384", "-b 65536", "-b 4096 -O ^64bit"])
def test_sound_images_of_every_block_size(options: str, tmp_path: Path) -> None:
    """What e2fsprogs have made, with an index in the directories that need one: nothing is wrong with it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for n in range(1500):
        (tree / f"{n:04}-{'n' * 90}").touch()
    image = mke2fs(
        tmp_path / "image",
        f"-t ext4 -O metadata_csum,^has_journal {options}",
        64 * MIB,
        "-N",
        "2048",
        "-d",
        os.fspath(tree),
    )
    assert subprocess.run(["e2fsck", "-fyD", image], check=False, capture_output=True).returncode in (0, 1)
    shown, complaints = view(image)
    assert (errors(shown), complaints, len(shown)) == ([], [], 1502)
    flip(image, first_block(image, "/", int(options.split()[1])) + 12 + 8 + 3)
    assert errors(view(image)[0]) == ["b'': listing: EIO"]
