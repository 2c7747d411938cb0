"""A server ends with its mount, or is ended: by what its fuse device says, and not by what it says itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fuservice.launch import lifetime
from fuservice.launch.lifetime import Lifetime
from fuservice.launch.loop import Loop
from fuservice.linux.fds import Fd
from fuservice.linux.fusedev import open_device
from tests.support import kernel
from tests.support.mounts import mounted

pytestmark = pytest.mark.needs("root", "fuse")


def turn_until(loop: Loop, late: list[str]) -> float:
    """Let *loop* turn until somebody is *late*; return how long it took."""
    began = time.monotonic()
    while not late and time.monotonic() - began < 5:
        loop.turn()
    return time.monotonic() - began


def test_no_mount_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "LONGEST_CONVERSATION", 0.3)
    loop, late = Loop(), list[str]()
    device = open_device()
    watched = Lifetime(loop, device, late.append)
    assert turn_until(loop, late) >= 0.3
    assert late == ["killed: it has no mount after 0 s"]
    watched.end()
    assert device.closed


def test_the_end_of_the_mount_is_seen_without_a_request_being_read(
    monkeypatch: pytest.MonkeyPatch, mount_point: Path
) -> None:
    monkeypatch.setattr(lifetime, "LAST_ACTS", 0.3)
    loop, late = Loop(), list[str]()
    with open_device() as device:
        watched = Lifetime(loop, Fd(os.dup(device.fileno())), late.append)
        loop.turn()
        options = f"fd={device.fileno()},rootmode=40000,user_id=0,group_id=0"
        kernel.mount("lifetime", os.fspath(mount_point), "fuse", 0, options)
        assert mounted(mount_point)
        loop.turn()  # the mount is seen; from now on only its end is: the kernel's first request waits to be read
        kernel.umount2(os.fspath(mount_point), kernel.MNT_DETACH)
        assert turn_until(loop, late) >= 0.2
        assert late == ["killed: it did not end within 0 s of its mount"]
        watched.end()


def test_nobody_who_has_ended_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "LONGEST_CONVERSATION", 0.1)
    loop, late = Loop(), list[str]()
    Lifetime(loop, open_device(), late.append).end()
    monkeypatch.setattr(lifetime, "LONGEST_CONVERSATION", 60.0)
    turning = Lifetime(loop, open_device(), late.append)
    for _ in range(3):
        loop.turn()
    turning.end()
    assert late == []
