"""Real mounts: what programs see of a memtree through the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuservice.drivers.memtree import Memtree
from tests.fuse.kernelmount import served

pytestmark = pytest.mark.needs("root", "fuse")


def test_a_file_is_read(mount_point: Path) -> None:
    with served(mount_point, Memtree({"a": b"hello", "d": {"b": b"x" * 300_000}})) as mount:
        assert sorted(os.listdir(mount_point)) == ["a", "d"]
        assert (mount_point / "a").read_bytes() == b"hello"
        assert (mount_point / "d/b").read_bytes() == b"x" * 300_000
        assert mount.log() == []
