"""Images of every layout: all that we show is what the kernel's own read-only mount shows, and nothing is missing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.drivers.ext4.images import RECIPES, full_image, mke2fs, served
from tests.drivers.ext4.view import Mounted, Served, differences, errors, survey
from tests.support.mounts import loop_mounted


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize("name", RECIPES)
def test_as_the_kernel_shows_it(name: str, tmp_path: Path) -> None:
    image = full_image(tmp_path, name)
    point = tmp_path / "kernel"
    point.mkdir()
    with loop_mounted(image, point):
        theirs = survey(Mounted(str(point)))
    with served(image) as filesystem:
        ours = survey(Served(filesystem))
        assert filesystem.volume.complaints == []
    print(f"{name}: {len(ours)} entries, {sum('data' in facts for facts in ours.values())} files")
    assert differences(ours, theirs) == []
    assert errors(ours) == []
    assert len(ours) > 2500


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("-b 4096", 1 << 40),
        ("-b 1024 -O meta_bg,^resize_inode", 1 << 36),
        ("-b 4096 -C 65536 -O bigalloc", 1 << 40),
        ("-b 4096 -O 64bit,^has_journal -N 200000000", (1 << 44) - (1 << 20)),  # what ext4 itself can hold as one file
    ],
)
def test_a_large_filesystem_opens_as_fast_as_a_small_one(options: str, size: int, tmp_path: Path) -> None:
    """A tebibyte, sparse, and sixteen: descriptors are read where they are needed, and statfs adds up all of them."""
    image = mke2fs(tmp_path / "large.img", f"-t ext4 -E lazy_itable_init=1,lazy_journal_init=1 {options}", size)
    began = time.process_time()
    with served(image) as filesystem:
        assert filesystem.lookup(1, b"lost+found").attr.size
        spent = time.process_time() - began
        ours = survey(Served(filesystem))
    point = tmp_path / "kernel"
    point.mkdir()
    with loop_mounted(image, point):
        assert differences(ours, survey(Mounted(str(point)))) == []
    assert spent < 0.05
