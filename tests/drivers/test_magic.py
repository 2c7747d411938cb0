"""What an image is, by its magic numbers: the words for real images, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuservice.drivers import catalog, kinds, magic

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.gz"))
EXT_CORPUS = sorted((Path(__file__).parent / "ext4/corpus").glob("*.img.gz"))
#: What libblkid calls it, where that is not our word; None where it does not know the format.
BLKID = {"jbd": "jbd", "luks": "crypto_LUKS", "hfsplus": "hfsplus"} | dict.fromkeys(
    ("qcow2", "vmdk", "vdi", "vhd", "vhdx", "gzip", "xz", "zstd", "bzip2", "zip", "tar", "ar"), None
)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    """Return what reads *data* as pread(2) would."""
    return lambda position, length: data[position : position + length] if position >= 0 else b""


def word(data: bytes) -> str:
    """Return what *data* is recognized as."""
    return magic.identify(reader(data), len(data))


def unpacked(path: Path) -> bytes:
    """Return the first megabyte of a sample."""
    with gzip.open(path) as file:
        return file.read(1 << 20)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_real_images_are_recognized(path: Path) -> None:
    assert word(unpacked(path)) == path.stem.partition("-")[0]


@pytest.mark.skipif(shutil.which("blkid") is None, reason="no blkid to compare with")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_libblkid_says_the_same(path: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(unpacked(path))
    os.truncate(image, 512 << 20)  # what is cut short, libblkid does not believe
    command: list[str | Path] = ["blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE", image]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    image.unlink()
    ours = path.stem.partition("-")[0]
    expected = BLKID.get(ours, ours)
    if path.stem == "exfat":  # its boot sector has the mark of a partition table, and libblkid tells both
        told = told[:1]
    if path.stem == "iso9660-hybrid":
        told = told[:1]
    if path.stem == "udf-bridge":  # what makes it a whole UDF lies behind the cut
        expected = "iso9660"
    assert told == ([expected] if expected else []) or ours in ("xfs", "f2fs", "reiserfs"), told


def test_odd_ext_images_are_told_apart_as_mke2fs_meant_them() -> None:
    words = {path.name: word(unpacked(path)) for path in EXT_CORPUS}
    strangers = {name: found for name, found in words.items() if not found.startswith("ext")}
    assert len(words) > 100
    # What has no superblock in its place, or one that says nonsense, is no filesystem to us either.
    assert strangers == {"f_crashdisk.img.gz": "vfat", "i_zero_super.img.gz": "unknown", "j_ext_dumpe2fs.img.gz": "jbd"}


def made_up(place: int, text: bytes, size: int = 1 << 20) -> bytes:
    """Return *size* zeros with *text* at *place*."""
    return bytes(place) + text + bytes(size - place - len(text))


@pytest.mark.parametrize(("data", "expected"), [
    (b"", "empty"), (b"\0", "zeros"), (bytes(1 << 20), "zeros"), (os.urandom(1 << 16) + b"x", "unknown"), (b"hello\n", "unknown"),
    (made_up((1 << 19) + 5000, b"far"), "zeros"), (made_up(1 << 19, b"half"), "unknown"), (made_up(600, b"near"), "unknown"),
    (made_up(512, b"LABELONE" + bytes(16) + b"LVM2 001"), "lvm2"), (made_up(4096, b"\xfc\x4e\x2b\xa9\1\0\0\0"), "mdraid"),
    (made_up(0x20000 + 5 * 1024, b"\x0c\xb1\xba\0\0\0\0\0"), "zfs"), (made_up(32, b"NXSB"), "apfs"), (made_up(1024, b"H+\0\4"), "hfsplus"),
    (made_up(1024, b"BD" + bytes(18) + b"\0\0\2\0"), "hfs"), (made_up((1 << 20) - 512, b"koly\0\0\0\4"), "dmg"), (b"  <!DOCTYPE HTML>", "html"),
    (made_up(0, b"7z\xbc\xaf\x27\x1c"), "7z"), (made_up(0, b"Rar!\x1a\x07\0"), "rar"), (made_up(3, b"-FVE-FS-"), "bitlocker"),
    (made_up(510, b"\x55\xaa"), "unknown"),  # a boot sector without a partition
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_what_was_made_by_hand(data: bytes, expected: str) -> None:
    assert word(data) == expected


@pytest.mark.parametrize(
    "path", [p for p in SAMPLES if p.stem in ("ext4", "btrfs", "f2fs", "udf", "iso9660", "jfs")], ids=lambda p: p.stem
)
def test_zeros_at_the_beginning_make_no_archive(path: Path) -> None:
    data = unpacked(path)
    assert not any(data[:512])
    assert word(data) == path.stem


def test_two_filesystems_in_one_image_are_neither() -> None:
    btrfs, ext4 = (unpacked(path) for path in SAMPLES if path.stem in ("btrfs", "ext4"))
    both = bytearray(btrfs)
    both[1024:2048] = ext4[1024:2048]
    assert word(bytes(both)) == "several"


def test_a_disc_that_boots_elsewhere_is_a_disc() -> None:
    disc = bytearray(unpacked(next(p for p in SAMPLES if p.stem == "iso9660")))
    disc[1024:1028] = b"H+\0\4"
    disc[510:512] = b"\x55\xaa"
    assert word(bytes(disc)) == "iso9660"


@given(
    st.binary(max_size=600), st.sampled_from([0, 3, 32, 257, 512, 1024, 4086, 0x8000, 0x10000]), st.integers(0, 70_000)
)
def test_whatever_it_is_the_answer_is_a_word(text: bytes, place: int, size: int) -> None:
    data = (bytes(place) + text).ljust(size, b"\0")
    assert word(data) in kinds.KINDS


@given(st.binary(min_size=1, max_size=9), st.integers(0, 2000))
def test_damaged_samples_are_a_word_too(text: bytes, place: int) -> None:
    for path in SAMPLES[::6]:
        data = bytearray(unpacked(path)[:70_000])
        data[place : place + len(text)] = text
        assert word(bytes(data)) in kinds.KINDS


def test_every_word_has_a_sentence_and_every_driver_a_word() -> None:
    given_by_name = {name for name in catalog.DRIVERS if name != "memtree"}
    assert given_by_name <= kinds.FILESYSTEMS
    for kind in kinds.KINDS:
        sentence = kinds.sentence(kind, "a{b}.img")
        assert sentence.startswith("a{b}.img: is ") and "{source}" not in sentence
    words = {row[0] for row in (*magic._SIGNATURES, *magic._TRAILERS)}
    assert words <= set(kinds.KINDS)
