"""Where the filesystem lies: in an image that is too short for it, and somewhere inside a larger one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fuservice.drivers.ext4 import Ext4
from fuservice.drivers.ext4.check import Check
from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.errors import ImageError
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import MIB, full_image, mke2fs, small_tree
from tests.drivers.ext4.view import Mounted, Served, View, differences, errors, survey
from tests.support.mounts import loop_mounted

pytestmark = pytest.mark.needs("e2fsprogs")

CUT = {
    "ext2": "-t ext2 -b 1024",
    "ext4": "-t ext4 -b 1024 -g 2048 -O ^flex_bg",
    "bigalloc": "-t ext4 -b 1024 -C 4096 -O bigalloc",
}


def opened(image: Path) -> tuple[View, list[str]]:
    with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        filesystem = Ext4Filesystem(fd.fileno())
        return survey(Served(filesystem)), filesystem.volume.warnings


@pytest.mark.parametrize("name", CUT)
def test_what_is_left_of_a_filesystem_is_served(name: str, tmp_path: Path) -> None:
    """Cut anywhere behind the root directory: what is shown is what the whole image shows, the rest is EIO."""
    small_tree(tmp_path / "tree")
    image = mke2fs(tmp_path / "image", CUT[name], 16 * MIB, "-d", os.fspath(tmp_path / "tree"), "-N", "512")
    whole, warnings = opened(image)
    assert (warnings, errors(whole)) == ([], [])
    counts = []
    for length in (16 * MIB - 1, 12 * MIB, 9 * MIB, 5 * MIB, 3 * MIB, 2 * MIB + 512, MIB, 700_000, 500_000, 300_000):
        os.truncate(image, length)
        try:
            cut, warnings = opened(image)
        except ImageError as error:
            assert "the root directory cannot be read" in str(error) or "no directory" in str(error)  # noqa: PT017
            continue
        (said,) = [line for line in warnings if "cut short" in line]
        assert f"the image has {length};" in said
        assert differences(cut, whole, forgiving=True) == []
        assert cut[b""]["space"]
        counts.append(len(errors(cut)))
    assert counts[0] == 0
    assert counts[-1] > 0
    with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        walk = Check(Ext4Filesystem(fd.fileno()).volume, 60)
        findings = [what for _path, _ino, what in walk.findings()]
    assert findings[0].startswith("the image has 300000 of 16777216 bytes, ")
    assert any("behind the end of the image" in what or "are beyond the image's" in what for what in findings[1:])


@pytest.mark.needs("root", "loop", "ext4")
def test_the_kernel_refuses_a_filesystem_larger_than_its_device(tmp_path: Path) -> None:
    """One of the few images that only we serve: a writer would run into the end of the device, a reader gets EIO there."""
    image = mke2fs(tmp_path / "image", "-t ext4 -b 4096", 16 * MIB)
    os.truncate(image, 15 * MIB)
    (tmp_path / "kernel").mkdir()
    with pytest.raises(subprocess.CalledProcessError), loop_mounted(image, tmp_path / "kernel"):
        pass
    assert len(opened(image)[0]) == 2


@pytest.mark.needs("root", "loop", "ext4")
@pytest.mark.parametrize("before", [512, 1024 * 1024, 12_800])
def test_a_filesystem_inside_a_larger_image(before: int, tmp_path: Path) -> None:
    """``-o offset=`` as mount(8) has it, for a partition of a disk's image: others lie before and behind it."""
    alone = full_image(tmp_path, "ext4-1k")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(before + 96 * MIB + 5 * MIB)
        os.pwrite(file.fileno(), b"\xaa" * 512, before - 512)
    subprocess.run(
        ["dd", f"if={alone}", f"of={disk}", "bs=512", f"seek={before // 512}", "conv=notrunc,sparse", "status=none"],
        check=True,
    )
    said: list[str] = []
    with Fd(os.open(disk, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        ours = survey(Served(Ext4(said.append).load(fd, {"offset": str(before)})))
        with pytest.raises(ImageError, match="magic number"):
            Ext4(said.append).load(fd, {"offset": str(before + 512)})
        with pytest.raises(ImageError, match="would start at byte"):
            Ext4(said.append).load(fd, {"offset": str(1 << 40)})
    (tmp_path / "kernel").mkdir()
    with loop_mounted(disk, tmp_path / "kernel", options=f"ro,loop,noload,offset={before}"):
        theirs = survey(Mounted(os.fspath(tmp_path / "kernel")))
    assert (differences(ours, theirs), errors(ours), said) == ([], [], [])
    assert len(ours) > 2500
