"""One owner for each descriptor: closed once, given away visibly, and a dropped one is told."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import warnings
from pathlib import Path

import pytest

from fuservice.linux import fusedev, memfd, statfs
from fuservice.linux.fds import Fd


def null() -> int:
    """Return a fresh descriptor."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def is_open(fd: int) -> bool:
    """Say whether number *fd* is open."""
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError as error:
        return error.errno != errno.EBADF
    return True


def test_it_is_closed_once() -> None:
    fd = Fd(null())
    number = fd.fileno()
    fd.close()
    assert fd.closed and not is_open(number)
    other = null()  # takes the number over
    assert other == number
    fd.close()
    assert is_open(other)
    os.close(other)


def test_a_block_closes_it_whatever_happens() -> None:
    with pytest.raises(KeyError), Fd(null()) as fd:
        raise KeyError
    assert fd.closed


def test_what_was_taken_is_the_takers() -> None:
    with Fd(null()) as fd:
        number = fd.take()
        assert fd.closed and repr(fd) == "Fd(closed)"
    assert is_open(number)
    os.close(number)


def test_a_closed_one_has_no_number() -> None:
    fd = Fd(null())
    assert repr(fd) == f"Fd({fd.fileno()})"
    fd.close()
    for use in (fd.fileno, fd.take):
        with pytest.raises(ValueError, match="descriptor is closed"):
            use()


def test_a_dropped_one_warns_and_is_closed() -> None:
    number = null()
    with pytest.warns(ResourceWarning, match=f"Fd\\({number}\\) was never closed"):
        Fd(number)  # a reference count of zero, there and then
    assert not is_open(number)


def test_what_is_no_descriptor_is_refused_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="not a file descriptor: -1"):
            Fd(-1)
        gc.collect()


# ---- memory files ----


def test_a_sealed_file_can_no_longer_change() -> None:
    with memfd.sealed("test", b"content") as fd:
        assert os.pread(fd.fileno(), 100, 0) == b"content"
        assert memfd.seals(fd.fileno()) == memfd.ALL_SEALS
        assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        assert os.lseek(fd.fileno(), 0, os.SEEK_CUR) == 0
        for change in (
            lambda: os.pwrite(fd.fileno(), b"C", 0),
            lambda: os.ftruncate(fd.fileno(), 0),
            lambda: os.ftruncate(fd.fileno(), 100),
            lambda: fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, 0),
        ):
            with pytest.raises(PermissionError):
                change()


def test_a_large_memory_file_is_written_whole() -> None:
    content = os.urandom(1 << 20)
    with memfd.sealed("test", content) as fd:
        assert os.pread(fd.fileno(), (1 << 20) + 1, 0) == content


def test_what_cannot_have_seals_has_none(tmp_path: Path) -> None:
    with Fd(null()) as fd:
        assert memfd.seals(fd.fileno()) is None
    closed = Fd(null())
    number = closed.fileno()
    closed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        memfd.seals(number)


# ---- the fuse device, and the type of a filesystem ----


@pytest.mark.needs("fuse")
def test_the_fuse_device_is_known_by_its_number() -> None:
    with fusedev.open_device() as device:
        assert fusedev.is_fuse_device(device.fileno())
        assert fcntl.fcntl(device.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC


def test_another_device_is_refused_by_name() -> None:
    with pytest.raises(OSError, match="not the fuse device") as error:
        fusedev.open_device("/dev/null")
    assert (error.value.errno, error.value.filename) == (errno.ENODEV, "/dev/null")
    with Fd(null()) as fd:
        assert not fusedev.is_fuse_device(fd.fileno())


def test_the_type_of_a_filesystem_is_read_from_any_descriptor(tmp_path: Path) -> None:
    with Fd(os.open("/proc/self/status", os.O_PATH | os.O_CLOEXEC)) as fd:
        assert statfs.filesystem_type(fd.fileno()) == 0x9FA0  # PROC_SUPER_MAGIC
    with Fd(os.open("/sys/kernel", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        assert statfs.filesystem_type(fd.fileno()) == 0x62656572  # SYSFS_MAGIC
    with pytest.raises(OSError, match="Bad file descriptor") as error:
        statfs.filesystem_type(-1)
    assert error.value.errno == errno.EBADF and error.value.__notes__ == ["while calling fstatfs()"]
