"""Budgets on real mounts: what programs see where an image wants too much, and that everybody else goes on."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest

from fuservice.drivers.memtree import Memtree
from fuservice.fuse.budget import Budgets
from fuservice.fuse.filesystem import FOREVER
from tests.fuse.kernelmount import ENDED_WELL, served
from tests.fuse.test_budget import KIB, MIB, Bottomless, Inflating, deflated
from tests.fuse.test_watch import Stuck

pytestmark = pytest.mark.needs("root", "fuse")


def errno_at(path: Path) -> int:
    """Return the errno of reading the file at *path*, 0 if it can be read."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno or -1
    return 0


def test_a_tree_without_bottom_or_end(mount_point: Path) -> None:
    with served(mount_point, Bottomless(), budgets=Budgets({"depth": 40, "entries": 5000})) as mount:
        assert (mount_point / ("down/" * 40)).is_dir()
        with pytest.raises(OSError, match="File name too long"):
            os.lstat(mount_point / ("down/" * 41))
        with pytest.raises(OSError, match="File too large"):
            os.listdir(mount_point)
        assert (mount_point / "aside").is_dir()
        assert [line.partition(":")[2].split(":")[0] for line in mount.log()] == [
            " over the budget of 40 names below each other",
            " over the budget of 5000 entries of one directory",
        ]


def test_too_many_open_files_of_a_mount(mount_point: Path) -> None:
    tree = Memtree({"file": b"content", "dir": {"file": b"content"}})
    with served(mount_point, tree, budgets=Budgets({"handles": 20})), contextlib.ExitStack() as stack:
        for number in range(20):
            fd = os.open(mount_point / ("file" if number % 2 else "dir"), os.O_RDONLY)
            stack.callback(os.close, fd)
        assert errno_at(mount_point / "file") == errno.ENFILE
        with pytest.raises(OSError, match="Too many open files in system"):
            os.listdir(mount_point)
        assert (mount_point / "file").stat().st_size == 7
        stack.close()
        assert sorted(os.listdir(mount_point)) == ["dir", "file"]


def test_a_stuck_driver_is_moved_on(mount_point: Path) -> None:
    class Slow(Stuck):
        destroy = Memtree.destroy

    with served(mount_point, Slow(), budgets=Budgets({"time": 150})) as mount:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                os.listxattr(mount_point / "stuck", follow_symlinks=False)
            assert (mount_point / "good").read_bytes() == b"good"
        assert len(mount.log()) == 1
        assert "/stuck: over the budget of 150 milliseconds for one request: " in mount.log()[0]
        mount.stop()
        assert mount.wait() == ENDED_WELL


def test_a_bomb_is_one_file_that_cannot_be_read(mount_point: Path) -> None:
    budgets = Budgets({"inflated": 8 * MIB})
    driver = Inflating(budgets, bomb=deflated(bytes(64 * KIB), 1600), fine=deflated(bytes(64 * KIB), 16))
    for node, size in ((2, 1600 * 64 * KIB), (3, MIB)):
        driver._attrs[node].size = size
    with served(mount_point, driver, budgets=budgets) as mount:
        assert errno_at(mount_point / "bomb") == errno.EFBIG
        assert (mount_point / "fine").read_bytes() == bytes(MIB)
        with (mount_point / "bomb").open("rb") as bomb:
            assert bomb.read(MIB) == bytes(MIB)
        assert len(mount.log()) == 1


def test_what_the_kernel_keeps_is_counted(mount_point: Path) -> None:
    tree = Memtree({f"f{number}": b"" for number in range(100)}, timeout_ns=FOREVER)
    with served(mount_point, tree, budgets=Budgets({"nodes": 60})) as mount:
        found = [os.path.lexists(mount_point / f"f{number}") for number in range(100)]
        assert sum(found) == 60
        assert len(os.listdir(mount_point)) == 100
        assert (mount_point / "f59").stat().st_size == 0
        assert len(mount.log()) == 1
