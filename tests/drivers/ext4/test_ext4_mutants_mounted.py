"""Mutants behind a real mount: whatever an image says, the mount answers and its server lives until it is unmounted."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.errors import ImageError
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import small_image
from tests.drivers.ext4.test_ext4_mutants import LAYOUTS, mutants
from tests.drivers.ext4.walk import image_of
from tests.fuse.kernelmount import ENDED_WELL, served

pytestmark = pytest.mark.needs("root", "fuse", "e2fsprogs")

MOST_SECONDS = 10
MOST_SEEN = 2000


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail where the code takes longer: each call of ours is one request of the kernel's, so a hang is seen."""

    def over(_signal: int, _frame: object) -> None:
        raise AssertionError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def look(path: Path, seen: Counter[str]) -> None:
    """Ask everything that a program can ask of one file."""
    try:
        status = os.lstat(path)
        names = os.listxattr(path, follow_symlinks=False)
        for name in names:
            os.getxattr(path, name, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            os.readlink(path)  # noqa: PTH115  # a target as it is
        elif stat.S_ISREG(status.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                for at in (0, 65_536, status.st_size // 2, max(0, status.st_size - 10)):
                    os.pread(fd, 65_536, at)
                with contextlib.suppress(OSError):
                    os.lseek(fd, os.lseek(fd, 0, os.SEEK_DATA), os.SEEK_HOLE)
            finally:
                os.close(fd)
        seen["read"] += 1
    except OSError as error:
        seen[os.strerror(error.errno or 0)] += 1


def walk(point: Path, seen: Counter[str]) -> None:
    """Look at what is below *point*, so much of it."""

    def refused(error: OSError) -> None:
        seen[os.strerror(error.errno or 0)] += 1

    for top, directories, files in os.walk(point, onerror=refused):
        for name in [*files, *directories]:
            look(Path(top, name), seen)
        if seen.total() > MOST_SEEN or top.count("/") > 200:
            break


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", LAYOUTS)
def test_mounted(
    name: str, tmp_path: Path, make_mount_point: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    options, check = LAYOUTS[name]
    image = small_image(tmp_path, name, options)
    assert subprocess.run(["e2fsck", "-fyD", image], check=False, capture_output=True).returncode in (0, 1)
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for number, order in enumerate(mutants(name, image, request.config.getoption("--mutants") // 20, check=check)):
        with Fd(image_of(order)) as fd:
            try:
                filesystem = Ext4Filesystem(fd.fileno(), check=check)
            except ImageError:
                counts["refused"] += 1
                continue
            with served(make_mount_point(f"{name}-{number}"), filesystem) as mount, at_most(MOST_SECONDS):
                here: Counter[str] = Counter()
                walk(mount.point, here)
                seen += here
                mount.point.stat()
                assert not mount.ended(), order
                mount.stop()
            assert mount.status == ENDED_WELL, (order, mount.log())
            assert not any("Traceback" in line or "bug" in line for line in mount.log()), mount.log()
            counts["damaged" if set(here) - {"read"} else "served"] += 1
    print(f"{name}: {dict(counts)}, objects: {dict(seen)}")
    assert counts["served"] + counts["damaged"] > 0
