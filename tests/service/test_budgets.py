"""Budgets of a served mount: a driver's own limits, what the log and the listener are told, and opening that never ends."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from fuservice.drivers.memtree import Memtree
from fuservice.linux.listener import Listener
from fuservice.service import Driver, service_main
from fuservice.service.log import TAKES_STATUS
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from fuservice.fuse.filesystem import Filesystem
    from fuservice.linux.fds import Fd

pytestmark = pytest.mark.needs("root", "fuse", "installed")


class Shallow(Driver):
    """A tree that is deeper than its driver allows."""

    name = "shallow"
    limits: ClassVar[Mapping[str, int]] = {"depth": 2, "time": 150}

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        return Memtree({"a": {"b": {"c": {}}}})


class Endless(Driver):
    """A driver that never gets to the end of its image."""

    name = "endless"
    limits: ClassVar[Mapping[str, int]] = {"start": 100}

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        return Memtree({str(number): b"" for number in itertools.count() if forever(number)})


def forever(number: int) -> bool:
    return number < 0


Mounted = tuple[subprocess.CompletedProcess[str], int, Path]
Mounter = Callable[..., Mounted]


@pytest.fixture
def mount(tmp_path: Path, mount_point: Path) -> Iterator[Mounter]:
    """Give a function that mounts with a driver, and returns how the helper ended, the server's pid and its log."""
    log = tmp_path / "log"
    pids: list[int] = []

    def run(driver: type[Driver], **environment: str) -> Mounted:
        listener = Listener(f"{tmp_path}/{driver.name}", 0o600)
        command: list[str | Path] = [
            PROGRAMS / "fuservicemount",
            "-t",
            driver.name,
            f"--socket-dir={tmp_path}",
            mount_point,
        ]
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
            connection = listener.accept()
            os.dup2(connection.fileno(), 3)
            os.environ.update(environment, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
            os._exit(service_main(driver, [driver.name]))
        pids.append(pid)
        listener.close()
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False), pid, log

    yield run
    detach_all(mount_point)
    for pid in pids:  # only where the test has failed is there anything to wait for
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


@pytest.mark.parametrize("kept", [True, False])
def test_the_listener_is_told_of_overruns_if_it_keeps_count(mount: Mounter, mount_point: Path, kept: bool) -> None:  # noqa: FBT001
    done, pid, log = mount(Shallow, **({TAKES_STATUS: "1"} if kept else {}))
    assert (done.returncode, done.stderr) == (0, "")
    assert (b"\x01status budget_" in log.read_bytes()) is kept
    before = len(log.read_bytes())
    with pytest.raises(OSError, match="File name too long"):
        os.lstat(mount_point / "a/b/c")
    if kept:
        wait_until(lambda: b" budget_depth=2/2/1 " in log.read_bytes(), "the status")
    assert os.listdir(mount_point / "a") == ["b"]
    detach_all(mount_point)
    assert os.waitpid(pid, 0)[1] == 0
    sentence, status, *more = log.read_bytes()[before:].split(b"\n")
    assert sentence == b"LOOKUP /a/b/c: over the budget of 2 names below each other: 3"
    assert status.startswith(b"\x01status budget_" if kept else b"") and more == ([b""] if kept else [])


def test_opening_that_never_ends_ends(mount: Mounter) -> None:
    done, pid, log = mount(Endless)
    assert done.returncode == 1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert "over the budget of 100 milliseconds for opening the image: " in log.read_text()
