"""Attaching, by the new mount API and by mount(2): the same mount, and one that goes by its descriptor, not by its name.

Nobody serves what is mounted here, so nothing may touch it: the kernel's list is asked, and the device closed first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuservice.errors import RefusalError
from fuservice.helper.attach import Plan, attach
from fuservice.helper.mountpoint import MountPoint
from fuservice.helper.options import Options, check_kernel_options
from fuservice.linux import fusedev, mountapi
from fuservice.linux.fds import Fd
from tests.support import kernel
from tests.support.mounts import Mount, mounted

pytestmark = pytest.mark.needs("root", "fuse")

BOTH = pytest.mark.parametrize("new_api", [True, False], ids=["fsopen", "mount2"])


@pytest.fixture
def device() -> Iterator[Fd]:
    """Give a fuse device, closed before mounts are detached: whoever waits in one then gets an error."""
    with fusedev.open_device() as fd:
        yield fd


@pytest.fixture
def point(mount_point: Path) -> Iterator[MountPoint]:
    """Give a pinned directory."""
    pinned = MountPoint(str(mount_point))
    yield pinned
    pinned.close()


def plan(
    device: Fd, *, flags: int = 6, raw: str = "", fuseblk: bool = False, subtype: str = "x", source: str = "s"
) -> Plan:
    """Return a plan whose options a server said."""
    typed = Options()
    typed.add("allow_other")
    options = check_kernel_options(raw.encode(), typed, may_allow_other=True, fuseblk=fuseblk)
    return Plan(fuse_device=device, subtype=subtype, source=source, flags=flags, options=options, fuseblk=fuseblk)


@contextlib.contextmanager
def attached(what: Plan, point: MountPoint, *, new_api: bool) -> Iterator[Mount]:
    """Have it mounted, and see it gone afterwards."""
    made = attach(what, point, new_api=new_api)
    try:
        found = mounted(Path(point.path or ""))
        assert found is not None
        yield found
    finally:
        made.detach()
        made.close()
    assert mounted(Path(point.path or "")) is None


@BOTH
@pytest.mark.parametrize(("flags", "options", "superblock"), [
    (0, "rw,relatime", "rw,"), (6, "rw,nosuid,nodev,relatime", "rw,"), (7, "ro,nosuid,nodev,relatime", "ro,"),
    (6 | 8 | 256, "rw,nosuid,nodev,noexec,relatime,nosymfollow", "rw,"), (6 | 16 | 128, "rw,nosuid,nodev,relatime", "rw,sync,dirsync,"),
    (6 | 1024 | 2048, "rw,nosuid,nodev,noatime,nodiratime", "rw,"), (6 | 1 << 24, "rw,nosuid,nodev", "rw,"),
    (6 | 1 << 21 | 1 << 15, "rw,nosuid,nodev,relatime", "rw,"),
])  # fmt: skip
def test_flags_become_the_mounts_and_the_superblocks(
    device: Fd, point: MountPoint, new_api: bool, flags: int, options: str, superblock: str  # noqa: FBT001
) -> None:  # fmt: skip
    with attached(plan(device, flags=flags), point, new_api=new_api) as mount:
        assert (mount.fstype, mount.source, mount.options) == ("fuse.x", "s", options)
        assert mount.super_options == superblock + "user_id=0,group_id=0"


@BOTH
def test_options_are_what_was_checked_and_ours_come_last(device: Fd, point: MountPoint, new_api: bool) -> None:  # noqa: FBT001
    what = plan(device, raw="max_read=8192,default_permissions,allow_other")
    with attached(what, point, new_api=new_api) as mount:
        assert mount.super_options == "rw,user_id=0,group_id=0,default_permissions,allow_other,max_read=8192"


@BOTH
def test_a_plain_fuse_has_no_subtype(device: Fd, point: MountPoint, new_api: bool) -> None:  # noqa: FBT001
    with attached(plan(device, subtype=""), point, new_api=new_api) as mount:
        assert mount.fstype == "fuse"


@BOTH
def test_a_regular_file_can_be_mounted_on(device: Fd, tmp_path: Path, new_api: bool) -> None:  # noqa: FBT001
    (tmp_path / "file").touch()
    pinned = MountPoint(str(tmp_path / "file"))
    with attached(plan(device), pinned, new_api=new_api) as mount:
        assert mount.point == str(tmp_path / "file")
    pinned.close()


@BOTH
def test_odd_words_arrive_as_they_are(device: Fd, tmp_path: Path, new_api: bool) -> None:  # noqa: FBT001
    place = tmp_path / "a b,c=d é"
    place.mkdir()
    pinned = MountPoint(str(place))
    with attached(plan(device, source="so,ur ce=é"), pinned, new_api=new_api) as mount:
        assert (mount.point, mount.source) == (str(place), "so,ur ce=é")
    pinned.close()


@BOTH
def test_what_lies_on_it_or_beside_it_stays(device: Fd, point: MountPoint, tmp_path: Path, new_api: bool) -> None:  # noqa: FBT001
    """Another mount of the same type and source is not ours."""
    other = tmp_path / "other"
    other.mkdir()
    with fusedev.open_device() as second:
        data = f"fd={second.fileno()},rootmode=40000,user_id=0,group_id=0"
        kernel.mount("s", str(other), "fuse.x", 6, data)
        with attached(plan(device), point, new_api=new_api):
            pass
        assert mounted(other) is not None
        kernel.umount2(str(other), kernel.MNT_DETACH)


@BOTH
def test_a_place_that_moved_is_not_mounted_on(device: Fd, point: MountPoint, mount_point: Path, new_api: bool) -> None:  # noqa: FBT001
    mount_point.rename(mount_point.with_name("aside"))
    mount_point.mkdir()
    with pytest.raises(RefusalError) as refused:
        attach(plan(device), point, new_api=new_api)
    assert refused.value.errno == errno.ESTALE
    assert mounted(mount_point) is None
    mount_point.rmdir()
    mount_point.with_name("aside").rename(mount_point)


@BOTH
def test_a_source_that_is_no_block_device_is_the_kernels_to_refuse(
    device: Fd,
    point: MountPoint,
    new_api: bool,  # noqa: FBT001
) -> None:
    with pytest.raises(RefusalError) as refused:
        attach(plan(device, fuseblk=True, source="/dev/null"), point, new_api=new_api)
    assert refused.value.errno == errno.ENOTBLK
    assert mounted(Path(point.path or "")) is None


@BOTH
def test_a_device_that_is_no_fuse_device_is_the_kernels_to_refuse(point: MountPoint, new_api: bool) -> None:  # noqa: FBT001
    with Fd(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) as null, pytest.raises(RefusalError) as refused:
        attach(plan(null), point, new_api=new_api)
    assert refused.value.errno == errno.EINVAL
    assert mounted(Path(point.path or "")) is None


def test_the_kernels_words_are_kept(device: Fd, point: MountPoint) -> None:
    with pytest.raises(RefusalError) as refused:
        attach(plan(device, fuseblk=True, source="/no/such/device"), point)
    assert refused.value.errno == errno.ENOENT
    assert any("/no/such/device" in line for line in refused.value.details)


# ---- kernels that lack something ----


def _lacks(number: int, what: str) -> object:
    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number), what)

    return call


@pytest.mark.parametrize(("call", "number"), [("fsopen", errno.ENOSYS), ("fsconfig_set", errno.EINVAL)])
def test_without_the_new_api_or_its_subtype_mount2_does_it(
    device: Fd, point: MountPoint, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(mountapi, call, _lacks(number, call))
    with attached(plan(device), point, new_api=True) as mount:
        assert (mount.fstype, mount.options) == ("fuse.x", "rw,nosuid,nodev,relatime")


@pytest.mark.parametrize(("call", "number", "says"), [
    ("fsopen", errno.ENODEV, "opening filesystem context for fuse"), ("fsconfig_set", errno.EPERM, "creating"),
    ("fsconfig_create", errno.EBUSY, "creating filesystem"),
    ("fsmount", errno.EPERM, "creating filesystem"), ("move_mount", errno.EPERM, "attaching the mount"),
])  # fmt: skip
def test_what_fails_on_the_way_leaves_nothing(
    device: Fd, point: MountPoint, monkeypatch: pytest.MonkeyPatch, call: str, number: int, says: str
) -> None:
    monkeypatch.setattr(mountapi, call, _lacks(number, call))
    with pytest.raises(RefusalError, match=f"^{says}.*: {os.strerror(number)}$") as refused:
        attach(plan(device, flags=7, raw="default_permissions"), point)
    assert refused.value.errno == number
    assert mounted(Path(point.path or "")) is None


def _and_then(monkeypatch: pytest.MonkeyPatch, what: Callable[[], None]) -> None:
    """Have *what* happen right after mount(2)."""
    real = mountapi.mount

    def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
        real(source, target, fstype, flags, data)
        what()

    monkeypatch.setattr(mountapi, "mount", mount)


def test_mount2_that_is_gone_at_once_is_not_confused_with_another(
    device: Fd, point: MountPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    _and_then(monkeypatch, lambda: kernel.umount2(str(point.path), kernel.MNT_DETACH))
    with pytest.raises(RefusalError, match="undone at once by somebody else"):
        attach(plan(device), point, new_api=False)
    assert mounted(Path(point.path or "")) is None


def test_mount2_is_told_from_one_that_another_made_at_the_same_time(
    device: Fd, point: MountPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with fusedev.open_device() as second:
        data = f"fd={second.fileno()},rootmode=40000,user_id=0,group_id=0"
        _and_then(monkeypatch, lambda: kernel.mount("s", str(other), "fuse.x", 6, data))
        with attached(plan(device), point, new_api=False):
            pass
        assert mounted(other) is not None
        kernel.umount2(str(other), kernel.MNT_DETACH)
