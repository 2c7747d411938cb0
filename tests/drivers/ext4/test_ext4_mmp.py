"""Multiple-mount protection: who has the filesystem is told, and nothing is refused."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import MIB, mke2fs
from tests.drivers.ext4.view import Mounted, Served, differences, survey
from tests.support.mounts import loop_mounted

pytestmark = pytest.mark.needs("e2fsprogs")

SECONDS = 1_700_000_000


def told(image: Path, *fields: tuple[int, bytes]) -> list[str]:
    """Return the warnings for *image*, with *fields* of its protection block changed."""
    with Fd(os.open(image, os.O_RDWR | os.O_CLOEXEC)) as fd:
        block = struct.unpack("<Q", os.pread(fd.fileno(), 8, 1024 + 0x168))[0]
        for at, value in fields:
            os.pwrite(fd.fileno(), value, (block << 12) + at)
        filesystem = Ext4Filesystem(fd.fileno())
        assert len(survey(Served(filesystem))) == 2
        return filesystem.volume.warnings


def test_who_has_it(tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", "-t ext4 -b 4096 -O mmp", 16 * MIB)
    assert told(image) == []
    signed = struct.pack("<IQ64s32s", 77, SECONDS, b"host.example", b"sdb1")
    assert told(image, (4, signed)) == [
        "in use by host.example as sdb1, who signed last at 2023-11-14 22:13:20 UTC: it may change while it is read"
    ]
    checked = struct.pack("<IQ64s32s", 0xE24D4D50, 1 << 63, b"\n\xff", b"")
    assert told(image, (4, checked)) == [
        "being checked by \n\\xff as somebody, who signed last at some time UTC: it may change while it is read"
    ]
    assert told(image, (0, b"XXXX"))[0].startswith("its multiple-mount protection is damaged: block ")
    with image.open("r+b") as file:
        os.pwrite(file.fileno(), b"\xff" * 8, 1024 + 0x168)
    with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        (said,) = Ext4Filesystem(fd.fileno(), check=False).volume.warnings
        assert said.startswith("its multiple-mount protection cannot be read: block ")


@pytest.mark.needs("root", "loop", "ext4")
def test_the_kernel_minds_as_little(tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", "-t ext4 -b 4096 -O mmp", 16 * MIB)
    subprocess.run(["debugfs", "-w", "-R", "set_mmp_value seq 77", image], check=True, capture_output=True)
    (tmp_path / "kernel").mkdir()
    with loop_mounted(image, tmp_path / "kernel") as point, Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        assert differences(survey(Served(Ext4Filesystem(fd.fileno()))), survey(Mounted(os.fspath(point)))) == []
