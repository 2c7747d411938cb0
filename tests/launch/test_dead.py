"""Only what nobody serves any more is detached: by the kernel's word, and while it is held."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.errors import SystemCallError
from fuservice.launch import dead
from fuservice.launch.dead import detach_dead, device_at
from fuservice.linux import fusedev, servers
from tests.support import kernel
from tests.support.mounts import mounted

if TYPE_CHECKING:
    from fuservice.linux.fds import Fd

pytestmark = pytest.mark.needs("root", "fuse")


def mount(point: Path, options: str = "user_id=0,group_id=0") -> Fd:
    """Mount on *point*; return the fuse device. Nobody answers the kernel's first request."""
    device = fusedev.open_device()
    kernel.mount("dead", os.fspath(point), "fuse", 0, f"fd={device.fileno()},rootmode=40000,{options}")
    return device


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Give a list for complaints, of which there shall be none."""
    told: list[str] = []
    yield told
    assert told == []


def test_a_mount_without_a_server_is_detached(mount_point: Path, complaints: list[str]) -> None:
    with mount(mount_point) as device:
        number = device_at(os.fspath(mount_point))
        assert number == servers.device_of(device.fileno())
    assert detach_dead(number, complaints.append) == [os.fspath(mount_point)]
    assert mounted(mount_point) is None
    assert detach_dead(number, complaints.append) == []


def test_another_users_mount_is_judged_as_its_owner_sees_it(mount_point: Path, complaints: list[str]) -> None:
    """Root's own question would not get to the connection."""
    with mount(mount_point, "user_id=65534,group_id=65534"):
        number = device_at(os.fspath(mount_point))
    assert detach_dead(number, complaints.append) == [os.fspath(mount_point)]


def test_a_server_that_does_not_answer_is_alive(
    mount_point: Path, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead, "PATIENCE", 0.1)
    with mount(mount_point):
        assert detach_dead(device_at(os.fspath(mount_point)), complaints.append) == []
        assert mounted(mount_point)


def test_each_place_of_a_dead_mount_is_freed(mount_point: Path, tmp_path: Path, complaints: list[str]) -> None:
    (tmp_path / "bound").mkdir()
    with mount(mount_point):
        kernel.mount(os.fspath(mount_point), os.fspath(tmp_path / "bound"), None, kernel.MS_BIND)
    places = detach_dead(device_at(os.fspath(mount_point)), complaints.append)
    assert sorted(places) == [os.fspath(tmp_path / "bound"), os.fspath(mount_point)]


def test_what_is_covered_stays(mount_point: Path, complaints: list[str]) -> None:
    with mount(mount_point):
        number = device_at(os.fspath(mount_point))
        kernel.mount("upon", os.fspath(mount_point), "tmpfs")
    assert detach_dead(number, complaints.append) == []
    there = mounted(mount_point)
    assert there and there.fstype == "tmpfs"


def test_who_cannot_detach_it_says_why(mount_point: Path) -> None:
    told: list[str] = []

    def refuse(path: str) -> None:
        raise SystemCallError(f"not {Path(path).name}")

    with mount(mount_point):
        number = device_at(os.fspath(mount_point))
    assert detach_dead(number, told.append, refuse) == []
    assert told == [f"{mount_point}: its server is dead, and it cannot be detached: not mnt"]


def test_only_mounts_of_fuse_have_a_device_here(mount_point: Path, tmp_path: Path) -> None:
    assert device_at(os.fspath(mount_point)) == device_at(os.fspath(tmp_path / "missing")) == ""
    kernel.mount("x", os.fspath(mount_point), "tmpfs")
    assert device_at(os.fspath(mount_point)) == ""
    with fusedev.open_device() as device:
        assert servers.device_of(device.fileno()) == ""
