"""Encrypted directories: without the key we show what the kernel shows without it; casefolded ones: names by any case."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from fuservice.drivers.ext4.casefold import fold
from fuservice.drivers.ext4.dirhash import dirhash
from fuservice.drivers.ext4.nokey import shown
from fuservice.fuse.filesystem import ROOT_NODE
from tests.drivers.ext4.images import MIB, mke2fs, served
from tests.drivers.ext4.populate import if_it_can
from tests.drivers.ext4.view import Errno, Mounted, Served, differences, survey
from tests.support.mounts import loop_mounted

ADD_KEY, SET_POLICY = 0xC0506617, 0x800C6613  # linux/fscrypt.h: FS_IOC_ADD_ENCRYPTION_KEY, FS_IOC_SET_ENCRYPTION_POLICY
BY_IDENTIFIER, VERSION, AES_256_XTS, AES_256_CTS = 2, 2, 1, 4


def add_key(mount_point: Path) -> bytes:
    """Give the filesystem a key; return its identifier."""
    fd = os.open(mount_point, os.O_RDONLY)
    try:
        argument = bytearray(struct.pack("=II32sII32s", BY_IDENTIFIER, 0, b"", 64, 0, b"") + bytes(range(64)))
        fcntl.ioctl(fd, ADD_KEY, argument)
    finally:
        os.close(fd)
    return bytes(argument[8:24])


def encrypt(directory: Path, key: bytes, padding: int) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, SET_POLICY, struct.pack("=5B3x16s", VERSION, AES_256_XTS, AES_256_CTS, padding, 0, key))
    finally:
        os.close(fd)


def fill(top: Path, names: int) -> None:
    chance = random.Random(names)
    for number in range(names):
        name = f"{number}" + "n" * chance.randrange(240)
        kind = number % 10
        if kind == 0:
            (top / name).mkdir()
            (top / name / "below").write_bytes(b"deep")
        elif kind == 1:
            with if_it_can():
                (top / name).symlink_to("t" * chance.randrange(1, 900))
        elif kind == 2:
            os.mkfifo(top / name)
        else:
            (top / name).write_bytes(chance.randbytes(chance.randrange(3000)))


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize(
    "options",
    ["-b 4096", "-b 1024", "-b 1024 -I 512 -O inline_data", "-b 1024 -O ^dir_index", "-b 1024 -O ^metadata_csum"],
)
def test_as_the_kernel_without_the_key(options: str, tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", f"-t ext4 -O encrypt {options}", 24 * MIB, "-N", "2048")
    point = tmp_path / "point"
    point.mkdir()
    with loop_mounted(image, point, options="rw,loop"):
        try:
            key = add_key(point)
        except OSError as error:
            pytest.skip(f"this kernel has no encryption for files: {error.strerror}")
        for padding, names in enumerate((3, 20, 60, 500)):
            (point / f"secret-{names}").mkdir()
            encrypt(point / f"secret-{names}", key, padding)
            fill(point / f"secret-{names}", names)
        (point / "plain").write_bytes(b"for everybody")
    with loop_mounted(image, point), served(image) as filesystem:
        theirs, ours = survey(Mounted(str(point))), survey(Served(filesystem))
        assert filesystem.volume.complaints == []
    assert differences(ours, theirs) == []
    assert len(ours) > 600
    assert sum(facts.get("data") == Errno(errno.ENOKEY) for facts in ours.values()) > 300


def test_the_shown_name_of_a_long_one() -> None:
    assert shown(bytes(16)) == b"A" * 32
    assert len(shown(b"\xff" * 149)) == 210
    assert len(shown(b"\xff" * 150)) == len(shown(b"\xff" * 255)) == 252
    assert shown(b"\xff" * 16, (0xFFFFFFFF, 0xFFFFFFFF)) == b"_" * 32
    with pytest.raises(OSError, match="an encrypted name of 15 bytes"):
        shown(bytes(15))


#: Names that are one where case does not count.
SAME = [
    ["name", "NAME", "nAmE"],
    ["Grün", "GRÜN", "gru\u0308n", "GRU\u0308N"],
    ["STRASSE", "straße", "Straẞe"],
    ["Ωmega", "\u2126MEGA", "ωMEGA"],
    ["Ǆ", "ǆ", "ǅ"],
    ["hid\u00adden", "HIDDEN", "hid\u200dden\ufeff"],
    ["ﬁ", "FI", "fi"],
    ["\u1e69", "s\u0323\u0307", "S\u0307\u0323"],
    ["日本語"],
    ["\uff26\uff35", "\uff46\uff55"],  # full width
    ["\u13a0", "\uab70"],  # Cherokee folds to upper case
]


@pytest.mark.needs("e2fsprogs")
def test_what_folds_to_the_same() -> None:
    """As e2fsprogs' tables have it: it hashes what a name folds to."""
    for names in SAME:
        words = "".join(f"dx_hash -c -e utf8 -h half_md4 {name}\n" for name in names)
        told = subprocess.run(["debugfs", "-f", "-"], input=words, capture_output=True, text=True, check=True).stdout
        theirs = [line.rpartition(" is ")[2] for line in told.splitlines() if " is 0x" in line]
        assert len(theirs) == len(names)
        assert len(set(theirs)) == len({fold(name.encode()) for name in names}) == 1, names
        major, minor = dirhash(fold(names[0].encode()), 1, bytes(16), signed=True)
        assert theirs[0] == f"0x{major:x} (minor 0x{minor:x})"
    assert len({fold(names[0].encode()) for names in SAME}) == len(SAME)


def test_what_is_only_itself() -> None:
    for name in (b"\xff\xfe", b"A\xc3", "\u0378A".encode(), b"A\xed\xa0\x80"):
        assert fold(name) == name


@pytest.mark.needs("e2fsprogs")
def test_a_directory_where_case_does_not_count(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    names = ["ReadMe", "Grün", "straße", *(f"File-{number}" for number in range(500))]
    for directory in ("folded", "exact"):
        (tree / directory).mkdir(parents=True)
        for name in names:
            (tree / directory / name).touch()
    (tree / "folded" / "Sub").mkdir()
    image = mke2fs(tmp_path / "image", "-t ext4 -b 1024 -O casefold", 8 * MIB, "-N", "2048", "-d", os.fspath(tree))
    for path in ("folded", "folded/Sub"):
        subprocess.run(["debugfs", "-w", "-R", f"sif {path} flags 0x40080000", image], check=True, capture_output=True)
    with served(image) as filesystem:
        folded, exact = (filesystem.lookup(ROOT_NODE, name).node for name in (b"folded", b"exact"))
        for asked, stored in (("readme", "ReadMe"), ("README", "ReadMe"), ("GRU\u0308N", "Grün"), ("STRASSE", "straße"), ("fILE-77", "File-77")):  # fmt: skip
            shown_as = {entry.ino: entry.name for entry in filesystem.readdir(folded, 0, 0)}
            assert shown_as[filesystem.lookup(folded, asked.encode()).node] == stored.encode()
            with pytest.raises(FileNotFoundError):
                filesystem.lookup(exact, asked.encode())
            assert filesystem.lookup(exact, stored.encode()).attr.mode
        with pytest.raises(FileNotFoundError):
            filesystem.lookup(folded, b"read")
        assert filesystem.lookup(folded, b"SUB").attr.nlink == 2
        assert filesystem.volume.complaints == []
