"""A disk that does not answer: whoever asks for what lies there waits, and nobody else does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import Memtree
from tests.fuse.kernelmount import served
from tests.support.mounts import detach_all, mounted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.fuse.filesystem import Wait
    from tests.e2e.conftest import Listener, Units

pytestmark = [pytest.mark.needs("root", "fuse", "loop", "e2fsprogs", "installed"), pytest.mark.timeout(120)]

MIB = 1 << 20
PLACES = [place * MIB for place in range(1, 6)]  # in the file "held": what lies there is not to be had
SIZE = 8 * MIB


class Disk(Memtree):
    """Has the file "image"; whoever reads one of the pages *held* in it waits for a byte from *gate*, and says so to *tell*."""

    def __init__(self, image: Path, held: set[int], gate: int, tell: int) -> None:
        super().__init__({"image": b"x" * 4096})
        self.fd, self.held, self.gate, self.tell = os.open(image, os.O_RDONLY), held, gate, tell
        attr = self.getattr(2)
        attr.size = image.stat().st_size
        attr.mode |= 0o444

    def wait_with(self, wait: Wait, perhaps: Wait) -> None:
        self.wait = wait

    def hold(self) -> None:
        os.write(self.tell, b"!")
        os.read(self.gate, 1)

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        for page in self.held:
            if offset <= page < offset + len(into):
                self.wait(self.hold)
        return into[: os.preadv(self.fd, [into], offset)]


class Slow:
    """The disk's other side."""

    def __init__(self) -> None:
        self.asked, self.tell = os.pipe()
        self.gate, self.opener = os.pipe()
        os.set_blocking(self.asked, False)
        self.waiting = 0

    def waits(self, count: int) -> bool:
        """Say whether *count* reads wait by now."""
        with contextlib.suppress(BlockingIOError):
            self.waiting += len(os.read(self.asked, 100))
        return self.waiting >= count

    def open(self) -> None:
        os.write(self.opener, b"!" * 100)

    def close(self) -> None:
        for fd in (self.asked, self.tell, self.gate, self.opener):
            os.close(fd)


def make_image(directory: Path) -> tuple[Path, set[int]]:
    """Return an image, and where in it the PLACES are."""
    tree, image = directory / "tree", directory / "image"
    (tree / "names").mkdir(parents=True)
    (tree / "held").write_bytes(bytes(range(256)) * (SIZE // 256))
    for number in range(300):
        (tree / "names" / f"name{number}").write_bytes(b"%d" % number * 100)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-d", tree, image, "24M"], check=True)
    held = set()
    for place in PLACES:
        found = subprocess.run(
            ["debugfs", "-R", f"bmap /held {place >> 12}", image], check=True, capture_output=True, text=True
        )
        held.add(int(found.stdout) << 12)
    return image, held


@contextlib.contextmanager
def loop_device(file: Path) -> Iterator[Path]:
    """Give a block device that passes reads on as they come: without direct-io, it would wait for each."""
    command: list[str | Path] = ["losetup", "-r", "--direct-io=on", "--find", "--show", file]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.open()
    slow.close()


@pytest.fixture(params=["a file", "a block device"])
def source(
    request: pytest.FixtureRequest, slow: Slow, tmp_path: Path, make_mount_point: Callable[[str], Path]
) -> Iterator[Path]:
    """Give an image on a disk that is slow: of a file there the kernel cannot say what is cached, of a device it can."""
    image, held = make_image(tmp_path)
    disk = Disk(image, held, slow.gate, slow.tell)
    with served(make_mount_point("slow"), disk, options=",allow_other", spare=8) as there:
        os.close(disk.fd)
        file = there.point / "image"
        with contextlib.nullcontext(file) if request.param == "a file" else loop_device(file) as path:
            yield path
            slow.open()


class Reader(threading.Thread):
    """Reads a page of *path* at *place*."""

    def __init__(self, path: Path, place: int) -> None:
        super().__init__()
        self.path, self.place, self.data = path, place, b""
        self.error: int | None = None
        self.start()

    def run(self) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no more than the page
            self.data = os.pread(fd, 4096, self.place)
        except OSError as error:
            self.error = error.errno
        finally:
            with contextlib.suppress(OSError):  # where the mount is gone
                os.close(fd)


@pytest.mark.parametrize("readers", [1, 5])
def test_nobody_waits_for_what_others_want(
    readers: int, source: Path, slow: Slow, mount_ext4: Callable[..., Path], listener: Listener | Units
) -> None:
    point = mount_ext4(source)
    waiting = [Reader(point / "held", place) for place in PLACES[:readers]]
    wait_until(lambda: slow.waits(readers), "the disk to be asked", 20)
    names = sorted(path.name for path in (point / "names").iterdir())  # none of this has been looked at before
    assert len(names) == 300
    for number in range(300):
        assert (point / "names" / f"name{number}").read_bytes() == b"%d" % number * 100
    assert not (point / "names/none").exists()
    assert (point / "held").stat().st_size == SIZE
    page = Reader(point / "held", 7 * MIB)  # of the same file
    page.join(20)
    assert len(page.data) == 4096
    assert all(reader.is_alive() for reader in waiting)
    slow.open()
    for reader in waiting:
        reader.join(20)
        assert reader.data == bytes(range(256)) * 16
    detach_all(point)
    wait_until(lambda: not listener.servers(), "the end of the server", 20)
    assert "ext4" not in listener.said().replace("sockets", "").partition("\n")[2]


def test_a_mount_that_ends_while_somebody_waits(
    source: Path, slow: Slow, mount_ext4: Callable[..., Path], listener: Listener | Units
) -> None:
    point = mount_ext4(source)
    reader = Reader(point / "held", PLACES[0])
    wait_until(lambda: slow.waits(1), "the disk to be asked", 20)
    found = mounted(point)
    assert found is not None
    abort = Path("/sys/fs/fuse/connections") / found.device.split(":")[1] / "abort"
    abort.write_text("1")
    reader.join(20)  # the kernel gives it an error
    assert not reader.is_alive() and reader.error
    detach_all(point)
    slow.open()
    wait_until(lambda: not listener.servers(), "the end of the server", 20)
