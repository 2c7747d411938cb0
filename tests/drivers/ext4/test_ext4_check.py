"""The walk through everything: it tells of each damage once, by path and inode, and ends when it should."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4 import check
from fuservice.drivers.ext4.check import Check
from fuservice.drivers.ext4.volume import Volume
from fuservice.linux.fds import Fd
from tests.drivers.ext4.images import small_image
from tests.drivers.ext4.test_ext4_checksums import DAMAGES, flip
from tests.drivers.ext4.test_ext4_damage import debugfs, number

if TYPE_CHECKING:
    from fuservice.drivers.ext4.check import Finding

pytestmark = pytest.mark.needs("e2fsprogs")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("check")
    image = small_image(directory, "sound", "-t ext4 -b 1024 -I 256")
    large = directory / "large"
    large.write_bytes(b"L" * 700)
    debugfs(image, "ea_rm /short user.large", f"ea_set -f {large} /short user.large")
    assert subprocess.run(["e2fsck", "-fyD", image], check=False, capture_output=True).returncode in (0, 1)
    return image


@pytest.fixture
def fresh(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "image"))


def checked(image: Path, seconds: float = 60) -> tuple[list[Finding], Check]:
    with Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        walk = Check(Volume(fd.fileno()), seconds)
        return [*walk.findings()], walk


def test_a_sound_image(sound: Path) -> None:
    findings, walk = checked(sound)
    assert findings == []
    assert walk.whole
    assert walk.objects == 200  # of the 201 names, two are of one file, and the root has none


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damage_is_one_finding(damage: str, fresh: Path) -> None:
    where, lost, words = DAMAGES[damage]
    path = lost[0].split("'")[1]
    ino = number(fresh, path)
    flip(fresh, where(fresh))
    findings, walk = checked(fresh)
    assert [(os.fsdecode(path), ino) for path, ino, _what in findings] == [(path, ino)]
    assert "its checksum is wrong" in findings[0][2]
    assert words.endswith("its checksum is wrong")
    assert walk.whole


def test_a_descriptor_is_told_of(tmp_path: Path) -> None:
    image = small_image(tmp_path, "groups", "-t ext2 -b 1024 -g 1024")
    debugfs(image, "set_bg 1 inode_table 999999")
    findings, _walk = checked(image)
    assert findings[0] == (b"", 0, "group 1: its inode table would be blocks 999999 to 1000031")


def test_directories_that_contain_each_other_end(fresh: Path) -> None:
    debugfs(fresh, "ln /directory-1 /directory-1/inner/up", "ln /directory-2/inner /directory-2/inner/self")
    findings, walk = checked(fresh)
    assert (findings, walk.whole) == ([], True)


def test_time_and_objects_end_it(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings, walk = checked(sound, seconds=-1)
    assert (findings, walk.objects, walk.whole) == ([], 0, False)
    monkeypatch.setattr(check, "MOST_FINDINGS", 0)
    assert checked(sound)[1].objects == 0
    monkeypatch.undo()
    monkeypatch.setattr(check, "MOST_OBJECTS", 10)
    findings, walk = checked(sound)
    assert (findings, walk.objects, walk.whole) == ([], 10, False)
