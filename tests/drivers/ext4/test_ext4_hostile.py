"""Images that nobody made by mke2fs: cut, blank, random, and with every field that we read set to what it cannot be.

The rule for all of them is in :mod:`hostile`: a sentence at opening or errors of single objects; in time, in memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.ext4.hostile import Order, order, summary, walked
from tests.drivers.ext4.images import MIB, small_image

LAYOUTS = {
    "extents": "-t ext4 -b 1024 -O ^has_journal",
    "inline": "-t ext4 -b 4096 -I 256 -O ^has_journal,inline_data",
    "blocks": "-t ext2 -b 1024",
}

FIELDS_END = 0x290  # bytes of the superblock that have a meaning; behind them is padding, and the checksum

pytestmark = pytest.mark.needs("e2fsprogs")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("hostile")
    return {name: small_image(directory, name, options) for name, options in LAYOUTS.items()}


def test_the_images_themselves_are_sound(images: dict[str, Path]) -> None:
    outcomes = walked(order(name, path) for name, path in images.items())
    assert [(one.outcome, one.words) for one in outcomes] == [("served", "201 entries")] * 3


def test_cut_short(images: dict[str, Path]) -> None:
    cuts = (0, 1, 1023, 1024, 1536, 2047, 2048, 4096, 65_536, MIB, 3 * MIB + 1, 4 * MIB - 1024, 4 * MIB - 1)
    outcomes = walked(order(f"{name} {cut}", path, cut=cut) for name, path in images.items() for cut in cuts)
    assert {one.outcome for one in outcomes} == {"refused"}
    sentences = {one.name: one.words for one in outcomes}
    assert sentences[f"blocks {MIB}"] == f"image is cut short: the filesystem says {4 * MIB} bytes, the image has {MIB}"
    assert sentences["blocks 1"] == "the image has 1 bytes: too short for an ext2, ext3 or ext4 filesystem"


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
        order(f"{name}: {value.hex()} at {at:#x}", path, (1024 + at, value))
        for name, path in images.items()
        for width, value in (highest if name == "extents" else highest[1:2])
        for at in range(0, FIELDS_END, width)
    ]
    print(summary("superblock fields", walked(orders)))


def metadata(path: Path, chance: random.Random) -> Callable[[], int]:
    """Return what picks positions in *path* that hold something, mostly metadata: the data in it are short."""
    content = path.read_bytes()
    held = [at for at in range(0, len(content), 4) if content[at : at + 4] != b"\0\0\0\0"]
    early = [at for at in held if at < len(content) // 3]
    return lambda: chance.choice(early if chance.random() < 0.7 else held) + chance.randrange(4)


def mutants(images: dict[str, Path], count: int, seed: int) -> list[Order]:
    orders = []
    for name, path in images.items():
        chance = random.Random(f"{seed} {name}")
        content = path.read_bytes()
        pick = metadata(path, chance)
        for number in range(count):
            edits = []
            for _ in range(chance.choice((1, 1, 3, 10, 40))):
                at = pick()
                kind = chance.randrange(4)
                if kind == 0:  # a flipped bit
                    edits.append((at, bytes([content[at] ^ 1 << chance.randrange(8)])))
                elif kind == 1:  # a field at an extreme
                    width = chance.choice((1, 2, 4))
                    edits.append((at - at % width, chance.choice((b"\0", b"\xff")) * width))
                elif kind == 2:  # another field's value, which is likelier to be believed
                    other = pick() & ~3
                    edits.append((at & ~3, content[other : other + 4]))
                elif chance.random() < 0.2:  # a block in the place of another
                    source, target = (pick() // 1024 * 1024 for _ in range(2))
                    edits.append((target, content[source : source + 1024]))
            if chance.random() < 0.9:  # mostly not in the superblock: that would be refused, and nothing tried
                edits = [edit for edit in edits if edit[0] >= 2048]
            orders.append(order(f"{name} mutant {number}", path, *edits))
    return orders


def test_mutants(images: dict[str, Path]) -> None:
    print(summary("mutants", walked(mutants(images, 150, seed=1))))
