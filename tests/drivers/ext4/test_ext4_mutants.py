"""Mutants of sound images: seeded flips, extremes, exchanged blocks and cuts, with checksums and without.

As many as --mutants says, 2,000 once in a while. The rule is in :mod:`hostile`: in time, in memory, no exception of ours. Where
no checksum stands in the way, a mutation reaches the code behind it, so most of them are of that kind.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.ext4.hostile import Order, order, summary, walked
from tests.drivers.ext4.images import small_image

#: name → options of mke2fs, and whether checksums are verified.
LAYOUTS = {
    "ext2": ("-t ext2 -b 1024", True),
    "ext3": ("-t ext3 -b 1024 -O dir_index", True),
    "checked": ("-t ext4 -b 1024 -I 256", True),
    "nocheck": ("-t ext4 -b 1024 -I 256 -O large_dir", False),
    "inline": ("-t ext4 -b 4096 -I 512 -O ^has_journal,inline_data,ea_inode", False),
    "bigalloc": ("-t ext4 -b 1024 -C 4096 -O bigalloc,^has_journal,^metadata_csum,uninit_bg,encrypt", True),
}
MOST_MB = 200
SECONDS_EACH = 1.0  # on average; one may take ten times as long

pytestmark = pytest.mark.needs("e2fsprogs")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("mutants")
    made = {name: small_image(directory, name, options) for name, (options, _check) in LAYOUTS.items()}
    for path in made.values():  # -D: directories get a hash index
        assert subprocess.run(["e2fsck", "-fyD", path], check=False, capture_output=True).returncode in (0, 1)
    return made


def metadata(content: bytes, chance: random.Random) -> Callable[[], int]:
    """Return what picks positions in *content* that hold something, mostly metadata: the data in it are short."""
    held = [at for at in range(0, len(content), 4) if content[at : at + 4] != b"\0\0\0\0"]
    early = [at for at in held if at < len(content) // 3]
    return lambda: chance.choice(early if chance.random() < 0.7 else held) + chance.randrange(4)


def flipped(content: bytes, pick: Callable[[], int], chance: random.Random) -> list[tuple[int, bytes]]:
    at = pick()
    return [(at, bytes([content[at] ^ 1 << chance.randrange(8)]))]


def extreme(_content: bytes, pick: Callable[[], int], chance: random.Random) -> list[tuple[int, bytes]]:
    width = chance.choice((1, 2, 4))
    return [(pick() // width * width, chance.choice((b"\0", b"\xff")) * width)]


def borrowed(content: bytes, pick: Callable[[], int], _chance: random.Random) -> list[tuple[int, bytes]]:
    """Another field's value is likelier to be believed."""
    at, other = pick() & ~3, pick() & ~3
    return [(at, content[other : other + 4])]


def exchanged(content: bytes, pick: Callable[[], int], _chance: random.Random) -> list[tuple[int, bytes]]:
    one, other = (pick() // 1024 * 1024 for _ in range(2))
    return [(one, content[other : other + 1024]), (other, content[one : one + 1024])]


MUTATIONS = (flipped, flipped, extreme, extreme, borrowed, borrowed, exchanged)


def mutants(name: str, path: Path, count: int, *, check: bool) -> list[Order]:
    """Return *count* mutants of the image at *path*: the same ones for the same image."""
    chance = random.Random(f"7 {name}")
    content = path.read_bytes()
    pick = metadata(content, chance)
    orders = []
    for number in range(count):
        edits = []
        for _ in range(chance.choice((1, 1, 3, 10, 40))):
            edits += chance.choice(MUTATIONS)(content, pick, chance)
        if chance.random() < 0.9:  # mostly not in the superblock: that would be refused, and nothing tried
            edits = [edit for edit in edits if edit[0] >= 2048]
        cut = chance.randrange(len(content)) if chance.random() < 0.02 else None
        orders.append(order(f"{name} mutant {number}", path, *edits, cut=cut, check=check))
    return orders


@pytest.mark.timeout(0)  # walked() has one of its own
def test_mutants(images: dict[str, Path], request: pytest.FixtureRequest) -> None:
    most = request.config.getoption("--mutants")
    for at, (name, (_options, check)) in enumerate(LAYOUTS.items()):
        count = (most + at) // len(LAYOUTS)
        outcomes = walked(
            mutants(name, images[name], count, check=check), seconds=30 + count * SECONDS_EACH, most_mb=MOST_MB
        )
        print(summary(name, outcomes))
        assert len(outcomes) == count
        assert any(one.outcome == "damaged" for one in outcomes)
