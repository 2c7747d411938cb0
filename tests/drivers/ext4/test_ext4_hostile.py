"""Images that nobody made by mke2fs: cut, blank, random, and with every field that we read set to what it cannot be.

The rule for all of them is in :mod:`hostile`: a sentence at opening or errors of single objects; in time, in memory.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.drivers.ext4.hostile import order, summary, walked
from tests.drivers.ext4.images import MIB, small_image

LAYOUTS = {
    "extents": "-t ext4 -b 1024 -O ^has_journal",
    "inline": "-t ext4 -b 4096 -I 256 -O ^has_journal,inline_data",
    "blocks": "-t ext2 -b 1024",
}

FIELDS_END = (
    0x290  # bytes of the superblock that have a meaning; behind them is padding, and the checksum (not looked at)
)

pytestmark = pytest.mark.needs("e2fsprogs")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("hostile")
    return {name: small_image(directory, name, options) for name, options in LAYOUTS.items()}


def test_the_images_themselves_are_sound(images: dict[str, Path]) -> None:
    outcomes = walked(order(name, path) for name, path in images.items())
    assert [(one.outcome, one.words) for one in outcomes] == [("served", "201 entries")] * 3


def test_cut_short(images: dict[str, Path]) -> None:
    cuts = (0, 1, 1023, 1024, 1536, 2047, 2048, 4096, 65_536, 300_000, MIB, 3 * MIB + 1, 4 * MIB - 1024, 4 * MIB - 1)
    outcomes = walked(order(f"{name} {cut}", path, cut=cut) for name, path in images.items() for cut in cuts)
    assert {one.outcome for one in outcomes} == {"refused", "damaged", "served"}
    found = {one.name: (one.outcome, one.words) for one in outcomes}
    short = "too short for an ext2, ext3 or ext4 filesystem"
    assert found["blocks 1"] == ("refused", f"the image has 1 bytes: {short}")
    assert found["blocks 4096"][1].startswith("the root directory cannot be read: bytes ")
    assert found["blocks 300000"][0] == "damaged"
    assert found[f"blocks {4 * MIB - 1}"] == ("served", "201 entries")  # nobody has used the last block


def test_blank_and_random(tmp_path: Path) -> None:
    chance = random.Random(4)
    contents = {"zeros": bytes(MIB), "ones": b"\xff" * MIB, "random": chance.randbytes(MIB)}
    # Random bytes that would be a filesystem, if the magic number were all that it takes.
    contents |= {f"magic-{n}": (r := chance.randbytes(MIB))[:1080] + b"\x53\xef" + r[1082:] for n in range(200)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    outcomes = walked(order(name, tmp_path / name) for name in contents)
    assert {one.outcome for one in outcomes} == {"refused"}
    assert "magic number is 0x0000" in outcomes[0].words


def test_each_field_of_the_superblock_at_its_maximum(images: dict[str, Path]) -> None:
    highest = [(width, b"\xff" * width) for width in (2, 4, 8)] + [(4, b"\xff\xff\xff\x7f")]
    orders = [
        order(f"{name}: {value.hex()} at {at:#x}", path, (1024 + at, value), check=False)
        for name, path in images.items()
        for width, value in (highest if name == "extents" else highest[1:2])
        for at in range(0, FIELDS_END, width)
    ]
    print(summary("superblock fields", walked(orders)))
