"""Mutants of what a crash has left, shown by -o recover: journals, fast commits and orphans that nobody has written.

The rule is in :mod:`hostile`. Checksums of tags are made anew for half of them, so that what is replayed is what was changed.
"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from fuservice.drivers.ext4.crc32c import crc32c
from fuservice.drivers.ext4.fiemap import fiemap
from tests.drivers.ext4.hostile import Order, order, summary, walked
from tests.drivers.ext4.images import served
from tests.drivers.ext4.test_ext4_fastcommit import crashed
from tests.drivers.ext4.test_ext4_journal import crash
from tests.drivers.ext4.test_ext4_mutants import MOST_MB, MUTATIONS

pytestmark = pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")

BLOCK = 4096


def journal_of(image: Path) -> list[tuple[int, int]]:
    """Return where the journal lies: position and length."""
    with served(image) as filesystem:
        volume = filesystem.volume
        return [
            (at, length)
            for _, at, length, _ in fiemap(volume.metadata, volume.any_inode(volume.superblock.journal_inum))
        ]


def mutants(image: Path, places: list[tuple[int, int]], count: int, *, tags: bool) -> list[Order]:
    """Return *count* mutants of what is used of *places*; *tags*: they hold tags, whose checksums are made anew."""
    chance, content = random.Random(11), image.read_bytes()
    held = [
        at for start, length in places for at in range(start, start + length, 4) if content[at : at + 4] != bytes(4)
    ]
    orders = []
    for number in range(count):
        edits: list[tuple[int, bytes]] = []
        for _ in range(chance.choice((1, 1, 2, 5))):
            edits += chance.choice(MUTATIONS)(content, lambda: chance.choice(held), chance)
        if tags and number % 2:
            mutant = bytearray(content)
            for at, data in edits:
                mutant[at : at + len(data)] = data
            edits += [(at, resealed(mutant[at : at + length])) for at, length in places]
        orders.append(order(f"mutant {number}", image, *edits, check=False, recover=True))
    return orders


def resealed(area: bytearray) -> bytes:
    """Return fast commits with right checksums."""
    at = crc = 0
    while at + 4 <= len(area):
        kind, length = struct.unpack_from("<HH", area, at)
        if BLOCK - at % BLOCK < 4:
            at = (at // BLOCK + 1) * BLOCK
            continue
        if kind not in range(1, 10) or at % BLOCK + 4 + length > BLOCK:
            break
        if kind == 8:
            struct.pack_into("<I", area, at + 8, crc32c(crc, bytes(area[at : at + 8])))
            crc = 0
        else:
            crc = crc32c(crc, bytes(area[at : at + 4 + length]))
        at += 4 + length
    return bytes(area)


@pytest.mark.timeout(0)
def test_logs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--mutants") // 4
    image = crash(tmp_path, "-t ext4 -b 4096 -O ^metadata_csum -J size=4", "", seed=1, rounds=3)
    outcomes = walked(mutants(image, journal_of(image), count, tags=False), seconds=60 + count, most_mb=MOST_MB)
    print(summary("logs", outcomes))
    assert {"served", "refused"} <= {one.outcome for one in outcomes}


@pytest.mark.timeout(0)
def test_fast_commits(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--mutants") // 4
    image = crashed(tmp_path, "-t ext4 -b 4096 -O fast_commit,^metadata_csum -J size=8", 6, 25)
    (start, length), *_ = journal_of(image)
    with image.open("rb") as file:
        (blocks,) = struct.unpack(">I", os.pread(file.fileno(), 4, start + 0x54))
    kept = blocks or 256
    outcomes = walked(
        mutants(image, [(start + length - (kept - 1) * BLOCK, 6 * BLOCK)], count, tags=True),
        seconds=60 + count,
        most_mb=MOST_MB,
    )
    print(summary("fast commits", outcomes))
    assert any(one.outcome != "refused" for one in outcomes)
