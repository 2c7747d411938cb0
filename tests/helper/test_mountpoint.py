"""The mount point: what the caller's word stood for at the start, judged by the server's words and watched to the end."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.errors import RefusalError
from fuservice.helper.mountpoint import MountPoint
from tests.peers.wire import DIR, REG


@contextlib.contextmanager
def pinned(path: Path | str | None) -> Iterator[MountPoint]:
    """Have *path* pinned."""
    point = MountPoint(None if path is None else str(path))
    try:
        yield point
    finally:
        point.close()
        point.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory with one of each kind of file."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.parametrize(("name", "kind"), [("dir", DIR), ("file", REG), ("dir/", DIR), ("dir/.", DIR)])
def test_a_directory_or_a_file_can_be_mounted_on(place: Path, name: str, kind: int) -> None:
    path = f"{place}/{name}"
    with pinned(path) as point:
        assert point.kind == kind
        for expected in (0, kind):
            point.check_named(path.encode(), expected, [])
            point.check_pinned(expected)
        point.check_unmoved()
        assert os.fstat(point.fileno()).st_ino == os.stat(path).st_ino  # noqa: PTH116


@pytest.mark.parametrize(("name", "number", "says"), [
    ("nowhere", errno.ENOENT, "No such file or directory"), ("file/x", errno.ENOTDIR, "Not a directory"),
    ("link", errno.ELOOP, "is a symbolic link: name the directory that it points to"),
    ("dangling", errno.ELOOP, "is a symbolic link"), ("fifo", errno.EACCES, "must be directory or regular file."),
])  # fmt: skip
def test_what_is_wrong_with_it_is_told_when_it_is_named(place: Path, name: str, number: int, says: str) -> None:
    with pinned(place / name) as point:
        point.check_named(os.fsencode(place / name), 0, [])
        with pytest.raises(RefusalError, match=says) as refused:
            point.check_pinned()
        assert refused.value.errno == number


@pytest.mark.parametrize(("name", "expected", "number"), [("dir", REG, errno.EISDIR), ("file", DIR, errno.ENOTDIR)])
def test_the_wrong_kind_is_refused(place: Path, name: str, expected: int, number: int) -> None:
    with pinned(place / name) as point, pytest.raises(RefusalError) as refused:
        point.check_pinned(expected)
    assert refused.value.errno == number


def test_only_the_callers_word_is_meant(place: Path) -> None:
    words = [b"x", os.fsencode(place / "dir"), b"other"]
    with pinned(place / "dir") as point:
        with pytest.raises(RefusalError, match="mount point must be in command line arguments"):
            point.check_named(b"/etc", 0, words)
        with pytest.raises(RefusalError, match=r"other: the mount point is the last argument, .* and no other"):
            point.check_named(b"other", 0, words)
        with pytest.raises(RefusalError, match="weird expected format 020000"):
            point.check_named(words[1], 0o020000, words)


def test_without_a_word_there_is_no_mount_point() -> None:
    with pinned(None) as point:
        with pytest.raises(RefusalError, match="must be in command line arguments"):
            point.check_named(b"", 0, [])
        with pytest.raises(RefusalError, match="there is no mount point") as refused:
            point.fileno()
        assert refused.value.errno == errno.ENOENT


@pytest.mark.parametrize("change", ["gone", "another", "a link"])
def test_a_place_that_was_exchanged_is_stale(place: Path, change: str) -> None:
    path = place / "dir"
    with pinned(path) as point:
        path.rename(place / "aside")
        if change == "another":
            path.mkdir()
        elif change == "a link":
            path.symlink_to("aside")
        with pytest.raises(RefusalError, match="was exchanged meanwhile") as refused:
            point.check_unmoved()
        assert refused.value.errno == errno.ESTALE
