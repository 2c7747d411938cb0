"""What lsattr(1) shows: flags, projects and versions, as the kernel's own mount tells them."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

from fuservice.drivers.ext4 import ioctls
from tests.drivers.ext4.images import MIB, mke2fs, served
from tests.drivers.ext4.test_ext4_damage import debugfs
from tests.fuse.kernelmount import served as mounted_by_fuse
from tests.support.mounts import loop_mounted

pytestmark = pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")

FLAGS = ["a", "A", "c", "d", "D", "i", "j", "s", "S", "t", "T", "u", "C", "P"]
ROOM = {ioctls.GETFLAGS: 4, ioctls.FSGETXATTR: 28, ioctls.GETVERSION: 4}


@pytest.mark.parametrize("options", ["-t ext4 -I 256", "-t ext3 -I 128"])
def test_as_the_kernel_tells(options: str, tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", options, 16 * MIB)
    point = tmp_path / "kernel"
    point.mkdir()
    names = []
    with loop_mounted(image, point, options="rw,loop"):
        for number, flag in enumerate(FLAGS):
            for kind in ("file", "directory"):
                path = point / f"{kind}-{flag}-{number}"
                names.append(path.name)
                path.touch() if kind == "file" else path.mkdir()
                subprocess.run(["chattr", "-v", f"{number * 7}", path], capture_output=True, check=False)
                subprocess.run(["chattr", f"+{flag}", path], capture_output=True, check=False)
    if "ext4" in options:  # not every kernel mounts such a filesystem for writing
        subprocess.run(["tune2fs", "-O", "project", image], check=True, capture_output=True)
        debugfs(image, *(f"sif /{name} projid {number * 100}" for number, name in enumerate(names)))
    told = set()
    with served(image) as filesystem, loop_mounted(image, point):
        for name in names:
            node = filesystem.lookup(1, name.encode()).node
            fd = os.open(point / name, os.O_RDONLY | os.O_CLOEXEC)
            for command, room in ROOM.items():
                buffer = bytearray(room)
                fcntl.ioctl(fd, command, buffer)
                assert filesystem.control(node, 0, command, b"", room) == bytes(buffer), (name, hex(command))
                told.add(bytes(buffer))
            os.close(fd)
    assert len(told) > 20


@pytest.mark.needs("fuse")
def test_through_a_mount(tmp_path: Path, mount_point: Path) -> None:
    image = mke2fs(tmp_path / "image", "-t ext4", 16 * MIB)
    (tmp_path / "kernel").mkdir()
    with loop_mounted(image, tmp_path / "kernel", options="rw,loop") as point:
        (point / "directory").mkdir()
        (point / "file").touch()
        subprocess.run(["chattr", "+A", point / "file", point / "directory"], check=True)
    subprocess.run(["tune2fs", "-O", "project", image], check=True, capture_output=True)
    debugfs(image, "sif /file projid 77", "sif /directory projid 78")
    with loop_mounted(image, tmp_path / "kernel") as point:
        theirs = subprocess.run(["lsattr", "-pvR", "."], cwd=point, capture_output=True, text=True, check=True)
    with served(image) as filesystem, mounted_by_fuse(mount_point, filesystem):
        ours = subprocess.run(["lsattr", "-pvR", "."], cwd=mount_point, capture_output=True, text=True, check=True)
        fd = os.open(mount_point / "file", os.O_RDONLY | os.O_CLOEXEC)
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            fcntl.ioctl(
                fd, 0x40086602, struct.pack("=Q", 0)
            )  # of an older kernel, whose number the kernel knows no more
        os.close(fd)
    assert sorted(ours.stdout.splitlines()) == sorted(theirs.stdout.splitlines())
    assert "   77" in ours.stdout
