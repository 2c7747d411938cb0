"""What is remembered of a filesystem has a ceiling, however much of it is looked at."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.fuse.filesystem import ROOT_NODE

pytestmark = pytest.mark.needs("e2fsprogs")

MIB = 1 << 20
FILES = 2_000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image with many files."""
    directory = tmp_path_factory.mktemp("memory")
    tree, path = directory / "tree", directory / "image"
    for number in range(FILES):
        place = tree / f"directory{number % 20}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file{number}").touch()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", str(FILES + 200), "-d", tree, path, "32M"], check=True)
    return path


def walk(filesystem: Ext4Filesystem) -> int:
    """Look every name up, as find(1) does; return how many there were."""
    found, todo = 0, [ROOT_NODE]
    while todo:
        node = todo.pop()
        for entry in filesystem.readdir(node, 0, 0):
            if entry.name not in (b".", b".."):
                looked_up = filesystem.lookup(node, entry.name)
                found += 1
                if stat.S_ISDIR(looked_up.attr.mode):
                    todo.append(looked_up.node)
    return found


def held_after_a_walk(image: Path, ceiling: int) -> int:
    """Return the bytes that are held after a walk."""
    fd = os.open(image, os.O_RDONLY)
    filesystem = Ext4Filesystem(fd, cache_bytes=ceiling)
    gc.collect()
    tracemalloc.start()
    try:
        assert walk(filesystem) > FILES
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        os.close(fd)


def test_metadata_is_kept_up_to_a_ceiling(image: Path) -> None:
    held = {ceiling: held_after_a_walk(image, ceiling) for ceiling in (MIB // 4, MIB // 2, 32 * MIB)}
    print(*(f"ceiling {ceiling / MIB:g} MiB: {bytes_ / MIB:.2f} held" for ceiling, bytes_ in held.items()), sep="\n")
    assert held[MIB // 2] <= MIB // 2
    assert held[MIB // 4] <= MIB // 4
    assert held[32 * MIB] > MIB  # there is more to remember than that
