"""What is mounted: the kernel's list taken apart, whatever bytes are in it, and the same by statmount(2)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuservice.linux import mountapi, mountinfo, statmount, statx
from fuservice.linux.fds import Fd
from fuservice.linux.mountinfo import Mount, parse

LINE = rb"36 35 98:0 /root /mnt/a\040b rw,noatime shared:1 master:2 - fuse.ext4 /dev/\134x rw,user_id=0"


def test_a_line_has_these_fields() -> None:
    (mount,) = parse(LINE + b"\n")
    assert (mount.mount_id, mount.parent_id, mount.device, mount.root) == (36, 35, "98:0", "/root")
    assert (mount.mount_point, mount.mount_options) == ("/mnt/a b", "rw,noatime")
    assert (mount.fstype, mount.source, mount.super_options) == ("fuse.ext4", "/dev/\\x", "rw,user_id=0")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (rb"/a\040b", "/a b"),
        (rb"/a\011b", "/a\tb"),
        (rb"/a\012b", "/a\nb"),
        (rb"/a\134b", "/a\\b"),
        (rb"/a\134040b", "/a\\040b"),
        (rb"/a\043", "/a#"),
        (rb"/a\777", "/a\\777"),
        (rb"/a\04", "/a\\04"),
        (rb"/a\089", "/a\\089"),
        (b"/a\\", "/a\\"),
        (b"/a\rb", "/a\rb"),
        (b"/a\x0b\x0c\x1c\x85b", os.fsdecode(b"/a\x0b\x0c\x1c\x85b")),
        (b"/\xff", "/\udcff"),
    ],
)
def test_the_kernels_escapes_are_undone_and_nothing_else_ends_a_line(written: bytes, name: str) -> None:
    line = b"1 2 0:1 / " + written + b" rw - tmpfs none rw"
    assert [mount.mount_point for mount in parse(line + b"\n" + line)] == [name, name]


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n\n", b"36", b"a b c d e f - g h i", b"36 35 98:0 / /mnt rw", b"36 35 98:0 / /mnt rw shared:1 -",
        b"36 35 98:0 / /mnt rw - ext4 /dev/x", b"36 x 98:0 / /mnt rw - ext4 /dev/x rw", b"-1 1 0:1 / / rw - a b c",
        "٣ 1 0:1 / / rw - a b c".encode(), b"9" * 5000 + b" 1 0:1 / / rw - a b c",
    ],
)  # fmt: skip
def test_what_is_no_line_is_passed_over(line: bytes) -> None:
    assert [mount.mount_id for mount in parse(line + b"\n" + LINE)] == [36]


words = st.sampled_from([b" ", b"\n", b"-", b" - ", b"\\", b"\\040", b"1 ", b"2 0:1 / /m rw", b"\0", b"\xff"])


@settings(deadline=None)
@given(st.one_of(st.binary(), st.lists(words, max_size=30).map(b"".join)))
@example(b"1 2 0:1 / / rw - a b c" * 3)
def test_any_bytes_give_mounts_or_nothing(text: bytes) -> None:
    for mount in parse(text):
        assert mount.mount_id >= 0 and isinstance(mount.super_options, str)


@pytest.mark.needs("root")
def test_a_mount_point_of_odd_bytes_is_found(tmp_path: Path) -> None:
    point = tmp_path / "odd \t\n\\\r\x1c#\udcff"
    point.mkdir()
    mountapi.mount("none", os.fspath(point), "tmpfs", 0, "")
    try:
        assert mountinfo.mounts()[-1].mount_point == os.fspath(point)
    finally:
        mountapi.umount2(os.fspath(point), mountapi.MNT_DETACH)


# ---- statmount(2): Debian 12's headers lack it, so the running kernel is the judge ----


def identity(path: str) -> int:
    """Return the unique id of the mount that *path* lies on, or skip."""
    with Fd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
        try:
            return statx.unique_id(fd.fileno())
        except OSError as error:
            if error.errno == errno.ENOSYS:
                pytest.skip("this kernel has no unique mount ids (Linux 6.8)")
            raise


@pytest.mark.parametrize("path", ["/", "/proc", "/sys", "/dev"])
def test_statmount_says_what_mountinfo_says(path: str) -> None:
    if not os.path.ismount(path):
        pytest.skip(f"{path} is no mount point here")
    above: Mount = next(mount for mount in reversed(mountinfo.mounts()) if mount.mount_point == path)
    assert statmount.statmount(identity(path)) == (above.fstype, path)


@pytest.mark.needs("root")
def test_statmount_knows_a_new_mount_and_forgets_it(mount_point: Path) -> None:
    mountapi.mount("none", os.fspath(mount_point), "tmpfs", 0, "")
    number = identity(os.fspath(mount_point))
    assert statmount.statmount(number) == ("tmpfs", os.fspath(mount_point))
    mountapi.umount2(os.fspath(mount_point), mountapi.MNT_DETACH)
    with pytest.raises(FileNotFoundError):
        statmount.statmount(number)
    assert identity(os.fspath(mount_point)) != number
