"""-o recover of fast commits: what we show is what the kernel shows after it has replayed them."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4.crc32c import crc32c
from fuservice.drivers.ext4.fastcommit import HEAD, INODE, PAD, TAIL, RangeMap, scan
from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.drivers.ext4.journal import recovered
from fuservice.drivers.ext4.volume import Volume
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import MIB, mke2fs
from tests.drivers.ext4.view import Mounted, Served, View, differences, errors, survey
from tests.support.mounts import loop_mounted

if TYPE_CHECKING:
    from fuservice.drivers.ext4.fastcommit import FastTag

LAYOUTS = {
    "4k": "-t ext4 -b 4096 -O fast_commit -J size=8",
    "1k": "-t ext4 -b 1024 -O fast_commit -J size=4",
    "no-checksums": "-t ext4 -b 2048 -O fast_commit,^metadata_csum,^64bit -J size=8",
    "orphan-file": "-t ext4 -b 4096 -I 512 -O fast_commit,orphan_file -J size=8",
}


class Writer:
    """Changes files in *top* at random, and has each few changes committed fast."""

    def __init__(self, top: Path, seed: int) -> None:
        self.top, self.chance, self.count = top, random.Random(seed), 0

    def pick(self) -> Path | None:
        files = sorted(path for path in self.top.rglob("*") if path.is_file())
        return self.chance.choice(files) if files else None

    def fresh(self) -> Path:
        self.count += 1
        return self.chance.choice([self.top, self.top / "a", self.top / "a/b"]) / f"name-{self.count}"

    def write(self) -> None:
        self.fresh().write_bytes(self.chance.randbytes(self.chance.choice((0, 10, 5000, 60_000))))

    def append(self) -> None:
        path = self.pick()
        if path:
            with path.open("ab") as file:
                file.write(self.chance.randbytes(self.chance.choice((1, 9000))))

    def holes(self) -> None:
        path = self.pick()
        if path:
            with path.open("r+b") as file:
                for _ in range(6):
                    os.pwrite(file.fileno(), b"piece", self.chance.randrange(3_000_000))

    def cut(self) -> None:
        path = self.pick()
        if path:
            os.truncate(path, self.chance.randrange(1 + path.stat().st_size))

    def allocate(self) -> None:
        path = self.pick()
        if path:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), self.chance.randrange(200_000), 50_000)

    def link(self) -> None:
        path = self.pick()
        if path:
            self.fresh().hardlink_to(path)

    def rename(self) -> None:
        path = self.pick()
        if path:
            path.rename(self.fresh())

    def replace(self) -> None:
        path, other = self.pick(), self.pick()
        if path and other:
            path.rename(other)

    def remove(self) -> None:
        path = self.pick()
        if path:
            path.unlink()

    def describe(self) -> None:
        path = self.pick()
        if path:
            path.chmod(self.chance.randrange(0o10000))
            os.utime(path, ns=(self.chance.randrange(1 << 60), self.chance.randrange(1 << 60)))
            os.chown(path, self.chance.randrange(1 << 31), 5)

    def commit(self) -> None:
        path = self.pick() or self.fresh()
        with path.open("ab") as file:
            file.write(b"c")
            os.fsync(file.fileno())

    def run(self, rounds: int) -> None:
        doing = (
            self.write, self.write, self.append, self.holes, self.cut, self.allocate, self.link, self.rename, self.replace, self.remove,
            self.describe,
        )  # fmt: skip
        for _ in range(rounds):
            for _ in range(self.chance.randrange(1, 5)):
                self.chance.choice(doing)()
            self.commit()


def crashed(directory: Path, options: str, seed: int, rounds: int) -> Path:
    image = mke2fs(directory / "image", options, 48 * MIB, "-N", "2048")
    (directory / "rw").mkdir()
    with loop_mounted(image, directory / "rw", options="rw,loop,commit=600,noinit_itable") as point:
        (point / "a/b").mkdir(parents=True)
        writer = Writer(point, seed)
        for _ in range(12):
            writer.write()
        subprocess.run(["sync", "-f", point], check=True)
        writer.commit()
        writer.run(rounds)
        subprocess.run(["cp", "--sparse=always", image, directory / "crashed"], check=True)
    return directory / "crashed"


def without_stamps(ours: View, theirs: View, since: int) -> None:
    """Take out of both the times at which the kernel replayed."""
    for path, facts in theirs.items():
        for name in ("ctime_ns", "mtime_ns"):
            value = facts.get(name)
            if isinstance(value, int) and value >= since and path in ours:
                ours[path].pop(name, None)
                facts.pop(name)


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize("name", LAYOUTS)
def test_as_the_kernel_after_its_replay(name: str, tmp_path: Path) -> None:
    for seed in range(2):
        directory = tmp_path / str(seed)
        directory.mkdir()
        image = crashed(directory, LAYOUTS[name], seed, 25)
        replayed = 0
        with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            tags = fast_tags(fd.fileno())
            replayed += len(tags)
            ours = survey(Served(Ext4Filesystem(fd.fileno(), recover=True)))
        since = time.time_ns() - 50_000_000  # the kernel's stamps are of its last tick
        (directory / "kernel").mkdir()
        with loop_mounted(image, directory / "kernel", options="rw,loop,noatime,nodiscard"):
            pass  # its memory of what it has just replayed is not what it has written: unwritten extents count as data
        with loop_mounted(image, directory / "kernel") as point:
            theirs = survey(Mounted(os.fspath(point)))
        without_stamps(ours, theirs, since)
        assert differences(ours, theirs) == [], seed
        assert errors(ours) == []
        print(f"{name}: {len(ours)} entries, {len(tags)} tags")
    assert replayed > 20


def fast_tags(fd: int) -> list[FastTag]:
    """Return the tags that are to be replayed."""
    return recovered(Volume(fd))[1]


def tag(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", kind, len(value)) + value


def block(*tags: tuple[int, bytes], sequence: int = 7, wrong: int = 0, seed: int = 0) -> bytes:
    """Return a block of 1 KiB that ends in a commit's tail."""
    data = b"".join(tag(*one) for one in tags)
    tail = struct.pack("<HHI", TAIL, 1024 - len(data) - 4, sequence)
    return (data + tail + struct.pack("<I", crc32c(seed, data + tail) ^ wrong)).ljust(1024, b"\0")


BEGIN = (HEAD, struct.pack("<II", 0, 7))
NODE = (INODE, b"\x0c\0\0\0".ljust(160, b"i"))


@pytest.mark.parametrize(
    ("blocks", "kinds"),
    [
        ([], []),
        ([bytes(1024)], []),
        ([block(NODE)], []),  # no head
        ([block((HEAD, struct.pack("<II", 0, 6)), NODE)], []),  # of an earlier transaction
        ([block(BEGIN, NODE)], [HEAD, INODE, TAIL]),
        ([block(BEGIN, NODE), block(NODE, (PAD, bytes(9)))], [HEAD, INODE, TAIL, INODE, PAD, TAIL]),
        ([block(BEGIN, NODE), block(NODE, wrong=1), block(NODE)], [HEAD, INODE, TAIL]),
        ([block(BEGIN, NODE), block(NODE, sequence=6)], [HEAD, INODE, TAIL]),
        ([block(BEGIN, NODE), bytes(1024)], [HEAD, INODE, TAIL]),
        ([block(BEGIN, NODE), tag(INODE, b"short").ljust(1024, b"\0")], [HEAD, INODE, TAIL]),
        ([block(BEGIN, NODE), struct.pack("<HH", INODE, 60_000).ljust(1024, b"\0")], [HEAD, INODE, TAIL]),
    ],
)
def test_whole_commits(blocks: list[bytes], kinds: list[int]) -> None:
    assert [kind for kind, _value in scan(blocks, 7)] == kinds


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (block(BEGIN, NODE, wrong=1), "checksum"),
        (block(BEGIN, (77, b"")), "a tag that cannot be"),
        (block((HEAD, struct.pack("<II", 1, 7))), "unknown features"),
    ],
)
def test_an_area_that_is_refused(first: bytes, words: str) -> None:
    with pytest.raises(OSError, match=words):
        scan([first], 7)


def test_ranges_against_a_plain_list() -> None:
    chance = random.Random(3)
    ranges, plain = RangeMap([(5, 10, 1005), (20, 30, -2020)]), [0] * 100
    plain[5:10], plain[20:30] = range(1005, 1010), range(-2020, -2030, -1)
    for _ in range(3000):
        start = chance.randrange(100)
        end = chance.randrange(start + 1, 101)
        target = chance.choice((0, 1, -1)) * chance.randrange(1000, 9000)
        ranges.put(start, end, target)
        plain[start:end] = [target and target + (at if target > 0 else -at) for at in range(end - start)]
        shown = [0] * 100
        for first, behind, at in ranges:
            assert first < behind
            shown[first:behind] = range(at, at + behind - first) if at > 0 else range(at, at - behind + first, -1)
        assert shown == plain
    assert len(ranges) < 100
