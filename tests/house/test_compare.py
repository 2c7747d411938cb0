"""The comparator sees every difference that it says it compares: what judges the drivers is judged first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.compare import compare

#: An access time that lies ahead, so that relatime leaves it alone.
NEVER = 4 * 10**18


def plant(top: Path) -> Path:
    """Make a small tree with one entry of most kinds, equal to any other that this makes."""
    (top / "dir/sub").mkdir(parents=True)
    (top / "file").write_bytes(b"content")
    (top / "dir/link").symlink_to("../file")
    os.link(top / "file", top / "dir/again")
    os.mkfifo(top / "fifo")
    (top / os.fsdecode(b"odd\n\xff")).touch()
    sparse = top / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 24)
    for path in [*top.rglob("*"), top]:
        os.utime(path, ns=(NEVER, 10**18 + 1), follow_symlinks=False)
    return top


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Give two equal trees."""
    return plant(tmp_path / "left"), plant(tmp_path / "right")


def test_equal_trees_are_equal(trees: tuple[Path, Path]) -> None:
    result = compare(*trees, also=["atime_ns", "data"], without=[])
    assert result.differences == []
    assert result.entries == 9 and result.kinds == {"directory": 3, "file": 4, "symlink": 1, "fifo": 1}
    assert result.bytes == 2 * len(b"content") + (1 << 24)


def relink(top: Path) -> None:
    """Make two equal files of what was one file with two names."""
    (top / "dir/again").unlink()
    (top / "dir/again").write_bytes(b"content")
    (top / "dir/again").chmod(0o644)


def retarget(top: Path) -> None:
    """Let the symlink point elsewhere."""
    (top / "dir/link").unlink()
    (top / "dir/link").symlink_to("../fil")


def fill(top: Path) -> None:
    """Write zeros into a hole: the same bytes, but data now."""
    with (top / "sparse").open("r+b") as file:
        file.write(bytes(1 << 16))


def retype(top: Path) -> None:
    """Make a file of a directory."""
    (top / "dir/sub").rmdir()
    (top / "dir/sub").touch()


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda top: (top / "file").write_bytes(b"Content"), "file: sha256"),
    "size": (lambda top: os.truncate(top / "sparse", 5), "sparse: size"),
    "mode": (lambda top: (top / "dir").chmod(0o700), "dir: mode"),
    "mtime": (lambda top: os.utime(top / "fifo", ns=(NEVER, 10**18 + 2)), "fifo: mtime_ns"),
    "atime": (lambda top: os.utime(top / "fifo", ns=(NEVER + 1, 10**18 + 1)), "fifo: atime_ns"),
    "xattrs": (lambda top: os.setxattr(top / "file", "user.x", b"y"), "file: xattrs"),
    "missing": (lambda top: (top / "dir/link").unlink(), "dir/link: only in"),
    "extra": (lambda top: (top / "dir/sub/new").touch(), "dir/sub/new: only in"),
    "type": (retype, "dir/sub: type"),
    "data": (fill, "sparse: data"),
    "hard link": (relink, "file: same_file"),
    "target": (retarget, "dir/link: target"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_seen(trees: tuple[Path, Path], change: str) -> None:
    alter, complaint = CHANGES[change]
    alter(trees[1])
    said = compare(*trees, also=["atime_ns", "data"]).differences
    assert any(line.startswith(complaint) for line in said), said


@pytest.mark.needs("root")
def test_owners_and_devices_are_compared(trees: tuple[Path, Path]) -> None:
    os.chown(trees[1] / "file", 5, 6)
    for minor, top in enumerate(trees):
        os.mknod(top / "node", 0o20600, os.makedev(1, minor))
    said = "\n".join(compare(*trees).differences)
    assert "file: uid: 0, not 5" in said and "file: gid: 0, not 6" in said and "node: rdev: 256, not 257" in said


def test_paths_longer_than_the_system_allows(tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        fd = os.open(tmp_path / side, os.O_RDONLY)
        for _ in range(30):
            os.mkdir("d" * 255, dir_fd=fd)
            inner = os.open("d" * 255, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(fd)
    assert compare(tmp_path / "left", tmp_path / "right", without=["mtime_ns"]).entries == 31
