"""``fuservice umount``: cleanly, by force with a word, or lazily; never waiting for a server that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuservice.drivers.memtree import Memtree
from tests.fuse.kernelmount import served
from tests.lifecycle.yard import PLACE, RECORDS, Yard
from tests.support import kernel
from tests.support.mounts import mounted
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "installed"), pytest.mark.timeout(60)]

BUSY = "busy: aborting its connection, whoever uses it will get errors"
STAYS = "somebody has a file or directory of it open (fuser -vm shows whom): end them, or use -l"


@contextmanager
def user(*words: str, cwd: Path = PLACE) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that uses a mount; killed at the end."""
    with subprocess.Popen(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def test_a_mount_goes_with_its_server_and_its_record(yard: Yard) -> None:
    point = yard.mounted()
    assert yard.cli("umount", point) == (0, "", "")
    assert not mounted(point) and not list(RECORDS.iterdir())
    wait_until(lambda: not yard.servers(), "the end of the server")


@pytest.mark.parametrize("way", ["mnt/", "./mnt", "link", "links", "dir/mnt", "dir/../mnt"])
def test_every_way_to_the_mount_point_is_understood(yard: Yard, way: str) -> None:
    point = yard.mounted()
    for name, target in (("link", "mnt"), ("links", "./link"), ("dir", ".")):
        (PLACE / name).symlink_to(target)
    try:
        assert yard.cli("umount", way) == (0, "", "")
    finally:
        for name in ("link", "links", "dir"):
            (PLACE / name).unlink()
    assert not mounted(point)


def test_of_two_mounts_the_upper_one_goes(yard: Yard) -> None:
    point = yard.mounted()
    below = yard.server_of(point)
    assert yard.mount(point, fstype="ext4").code == 0
    assert yard.cli("umount", point) == (0, "", "")
    assert yard.server_of(point) == below


def test_a_mount_that_somebody_keeps_open_is_aborted_and_then_detached_by_its_listener(yard: Yard) -> None:
    point = yard.mounted()
    with user("sleep", "60", cwd=point):
        assert yard.cli("umount", point) == (0, "", f"fuservice: {point}: {BUSY}\n")
        assert not mounted(point) and not list(RECORDS.iterdir())


def test_if_nobody_detaches_it_then_it_stays_until_it_is_let_go(yard: Yard) -> None:
    point = yard.mounted()
    with user("sleep", "60", cwd=point):
        os.kill(yard.server_of(point), signal.SIGSTOP)  # so that the listener has nobody to bury
        told = (
            f"fuservice: {point}: {BUSY}\nfuservice: {point}: cannot be unmounted: Device or resource busy; {STAYS}\n"
        )
        assert yard.cli("umount", point) == (1, "", told)
        assert mounted(point) and len(list(RECORDS.iterdir())) == 1
        assert yard.cli("umount", "-l", point) == (0, "", "")
        assert not mounted(point) and not list(RECORDS.iterdir())


def test_lazily_a_busy_one_goes_at_once_and_its_users_keep_it(yard: Yard) -> None:
    point = yard.mounted(fstype="ext4")
    with (point / "file").open("rb") as file:
        assert yard.cli("umount", "--lazy", point) == (0, "", "")
        assert not mounted(point)
        assert file.read() == b"content"
    wait_until(lambda: not yard.servers(), "the end of the server")


def test_who_waits_for_a_server_that_hangs_gets_an_error_and_the_mount_goes(yard: Yard) -> None:
    point = yard.mounted(fstype="ext4")
    os.kill(yard.server_of(point), signal.SIGSTOP)
    with user("ls", "-la", str(point)) as waiting:
        wait_until(
            lambda: Path(f"/proc/{waiting.pid}/wchan").read_text() == "request_wait_answer", "a request that waits"
        )
        began = time.monotonic()
        assert yard.cli("umount", point) == (0, "", f"fuservice: {point}: {BUSY}\n")
        assert time.monotonic() - began < 5
        assert waiting.wait(5) != 0
    assert not mounted(point)


def test_a_server_that_hangs_unused_is_unmounted_without_a_word(yard: Yard) -> None:
    point = yard.mounted()
    os.kill(yard.server_of(point), signal.SIGSTOP)
    began = time.monotonic()
    assert yard.cli("umount", point) == (0, "", "")
    assert time.monotonic() - began < 5


@pytest.mark.needs("loop")
@pytest.mark.parametrize("abortable", [True, False], ids=["aborted", "without fusectl"])
def test_a_block_device_whose_server_hangs_is_not_waited_for(yard: Yard, loop: str, *, abortable: bool) -> None:
    """The kernel waits for the server's answer to DESTROY, in umount(2) itself."""
    point = yard.point()
    with served(point, Memtree({"a": b""}), device=loop) as server:
        os.listdir(point)
        os.kill(server.pid, signal.SIGSTOP)
        if not abortable:
            kernel.mount("tmpfs", "/sys/fs/fuse/connections", "tmpfs")
        try:
            ended = yard.cli("umount", point)
        finally:
            if not abortable:
                kernel.umount2("/sys/fs/fuse/connections", kernel.MNT_DETACH)
            os.kill(server.pid, signal.SIGCONT)
        told = [f"fuservice: {point}: its server does not answer: aborting its connection"]
        if not abortable:
            told += [f"fuservice: {point}: is unmounted, but its server keeps {loop} busy until it ends"]
        assert (ended.code, ended.lines) == (0, told)
        assert not mounted(point)
        server.wait()


def test_what_is_no_mount_of_ours_is_left_alone(yard: Yard) -> None:
    point, other = yard.point(), yard.point("other")
    kernel.mount("tmpfs", str(other), "tmpfs")
    assert yard.cli("umount", point) == (1, "", f"fuservice: {point}: nothing is mounted there\n")
    assert yard.cli("umount", "missing/x") == (1, "", "fuservice: missing/x: nothing is mounted there\n")
    told = f"fuservice: {other}: is a mount of tmpfs, not of FUSE: use umount(8)\n"
    assert yard.cli("umount", other) == (1, "", told)
    assert mounted(other)


@pytest.mark.needs("nobody-python")
def test_an_ordinary_user_unmounts_nothing(yard: Yard) -> None:
    point = yard.mounted()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    ended = yard.run(*nobody, Path(__file__).resolve().parents[2] / ".venv/bin/fuservice", "umount", point)
    assert ended == (
        1,
        "",
        f"fuservice: {point}: was mounted by uid 0: that user and root can unmount it, and nobody else\n",
    )
    assert mounted(point) and len(list(RECORDS.iterdir())) == 1


def test_a_mount_that_lost_its_server_is_gone_from_the_list_too(yard: Yard) -> None:
    point = yard.mounted()
    pid = yard.server_of(point)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in yard.servers(), "the end of the server")
    wait_until(lambda: not mounted(point), "the listener to detach what is dead")
    assert os.listdir(point) == []
    assert yard.rows() == []
