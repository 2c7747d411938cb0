"""What a mount costs in system calls: one read of the image for each run of blocks, and nothing for what the kernel keeps."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fuservice.drivers.ext4.data import mapped_runs
from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.drivers.ext4.volume import Volume
from fuservice.fuse import crew
from tests.fuse.kernelmount import Served, served

pytestmark = pytest.mark.needs("root", "fuse", "strace", "e2fsprogs")

MIB = 1 << 20
MS_RDONLY = 1  # as always: else the kernel asks for the time of access after each read
NAMES = 200


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image with a file in one run, one in many, one that is a hole, and some names."""
    directory = tmp_path_factory.mktemp("calls")
    tree, path = directory / "tree", directory / "image"
    (tree / "names").mkdir(parents=True)
    for number in range(NAMES):
        (tree / f"names/name{number}").touch()
    (tree / "link").symlink_to("whole")
    (tree / "whole").write_bytes(os.urandom(8 * MIB))
    with (tree / "holes").open("wb") as file:
        for place in range(0, MIB, MIB // 4):  # four runs of half their room, and four holes
            file.seek(place)
            file.write(os.urandom(MIB // 8))
        file.truncate(3 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, path, "64M"], check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture
def mount(image: Path, mount_point: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    # Where the kernel cannot say whether a read will block, what strace(1) makes slow would be taken for a slow disk.
    monkeypatch.setattr(crew, "LONG", 60.0)
    fd = os.open(image, os.O_RDONLY)
    with served(mount_point, Ext4Filesystem(fd), spare=4, flags=MS_RDONLY) as mount:
        os.close(fd)
        yield mount


def whole_lines(lines: list[str]) -> Iterator[str]:
    """Yield calls as they end, in one line each: strace(1) tears those that take long."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, call = line.split(maxsplit=1)
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>")
        elif call.startswith("<... "):
            yield begun.pop(thread, "?(") + call.partition("resumed>")[2]
        else:
            yield call


class Calls:
    """The system calls of a server, all its threads', while a ``with`` lasts."""

    def __init__(self, mount: Served, log: Path) -> None:
        self._mount, self._log = mount, log
        self.lines: list[str] = []

    def __enter__(self) -> Calls:
        what = ["-e", "signal=none", "-e", "trace=!futex,restart_syscall"]
        command: list[str | Path] = ["strace", "-f", "-qq", *what, "-o", self._log, "-p", str(self._mount.pid)]
        self._tracer = subprocess.Popen(command)
        deadline = time.monotonic() + 10
        while "TracerPid:\t0" in Path(f"/proc/{self._mount.pid}/status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.statvfs(self._mount.point)  # a request that is seen: it stands where our part begins
        return self

    def __exit__(self, *_error: object) -> None:
        os.statvfs(self._mount.point)
        self._tracer.terminate()
        self._tracer.wait()
        lines = list(whole_lines(self._log.read_text().splitlines()))
        marks = [place for place, line in enumerate(lines) if "= 96" in line and line.startswith("write(")]
        self.lines = lines[marks[0] + 1 : marks[-1]]

    def named(self, *names: str) -> list[str]:
        return [line for line in self.lines if line.partition("(")[0] in names]

    def requests(self) -> int:
        """Return how many requests were read: not counted is the last one, which is ours."""
        return len(self.named("readv")) - 1

    def reads(self) -> list[int]:
        """Return how long each read of the image was."""
        return [int(line.rpartition("= ")[2]) for line in self.named("preadv2", "preadv", "pread64")]


@pytest.fixture
def traced(mount: Served, tmp_path: Path) -> Callable[[], Calls]:
    numbers = iter(range(100))
    return lambda: Calls(mount, tmp_path / f"calls{next(numbers)}")


def read_directly(path: Path, size: int) -> None:
    """Read all of *path*, *size* bytes at a time, past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, size)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)
    buffer.close()


def in_pieces(image: Path, path: Path) -> list[int]:
    """Return how long the runs of a file are, cut where each mebibyte ends: mkfs(8) may have had to go around something."""
    fd = os.open(image, os.O_RDONLY)
    volume = Volume(fd)
    inode, shift = volume.inode(path.stat().st_ino), volume.superblock.shift
    ends = [end << shift for _, end, _ in mapped_runs(volume.metadata, inode, 0, inode.size >> shift)]
    os.close(fd)
    cuts = sorted({0, *ends, *range(0, 8 * MIB + 1, MIB)})
    return [behind - at for at, behind in pairwise(cuts)]


def test_one_read_and_one_reply_for_each_mebibyte(image: Path, mount: Served, traced: Callable[[], Calls]) -> None:
    read_directly(mount.point / "whole", 8 * MIB)  # what is to be known of the file
    with traced() as calls:
        read_directly(mount.point / "whole", MIB)
    assert calls.reads() == in_pieces(image, mount.point / "whole")
    names = Counter(line.partition("(")[0] for line in calls.lines)
    assert calls.requests() == 8
    assert names["writev"] == 8, "each reply is the buffer that was read into"
    assert set(names) <= {"readv", "writev", "preadv2", "write"}, names


def test_one_read_for_each_run(mount: Served, traced: Callable[[], Calls]) -> None:
    with traced() as calls:
        read_directly(mount.point / "holes", MIB)
    assert [length for length in calls.reads() if length > 4096] == [MIB // 8] * 4  # the others are of metadata


def test_what_the_kernel_keeps_is_not_asked_for_again(mount: Served, traced: Callable[[], Calls]) -> None:
    def look() -> None:
        assert len(os.listdir(mount.point / "names")) == NAMES
        for number in range(NAMES):
            (mount.point / f"names/name{number}").stat()
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                (mount.point / "names/none").stat()
        assert (mount.point / "link").readlink() == Path("whole")
        fd = os.open(mount.point / "whole", os.O_RDONLY)
        assert sum(iter(lambda: len(os.read(fd, MIB)), 0)) == 8 * MIB
        os.close(fd)

    look()
    with traced() as calls:
        look()
    assert calls.requests() == 0, calls.lines
    assert calls.reads() == []


def test_a_listing_brings_the_attributes(mount: Served, traced: Callable[[], Calls]) -> None:
    with traced() as calls:
        for entry in os.scandir(mount.point / "names"):
            entry.stat(follow_symlinks=False)
    print(f"{calls.requests()} requests for {NAMES} names and their attributes")
    assert calls.requests() < NAMES // 2  # the first buffer is plus; the next ones if somebody wants attributes


def test_reads_ahead_go_out_together(mount: Served, traced: Callable[[], Calls]) -> None:
    """A reader from front to back is served from what was read ahead: requests are larger than what it asks for."""
    with traced() as calls, (mount.point / "whole").open("rb", buffering=0) as file:
        while file.read(4096):
            continue
    reads = [length for length in calls.reads() if length > 4096]
    assert sum(reads) == 8 * MIB
    assert len(reads) <= 8 * MIB // (64 << 10)
