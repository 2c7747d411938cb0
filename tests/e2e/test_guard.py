"""What becomes of a direct mount when its server, its supervisor or both are killed: its mount point is usable again, nothing stays.

The families of processes are found among our own descendants: this process adopts the orphans of what it runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import CONNECTIONS, detach_all, mounted
from tests.support.processes import descendants, status
from tests.support.waiting import holds_within, wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Mount

pytestmark = pytest.mark.needs("root", "fuse", "e2fsprogs", "installed")

USABLE = 5.0  # seconds after which a mount point counts as lost, and a stat(2) as hanging
NAMES = {"ext4": "server", "fuservice-direc": "supervisor", "fuservice-guard": "guard"}  # the kernel keeps 15 bytes
OPTIONS = ("-t", "ext4", "-o", "ro", "--direct")


class Family:
    """The processes of direct starts among our descendants, by what they are."""

    def __init__(self) -> None:
        self._pids: dict[str, list[int]] = {what: [] for what in NAMES.values()}
        for pid in descendants(os.getpid()):
            try:
                told = status(pid)
            except OSError:
                continue
            if told["Name"] in NAMES and told["State"][0] not in "ZX":
                self._pids[NAMES[told["Name"]]].append(pid)

    def __len__(self) -> int:
        return sum(map(len, self._pids.values()))

    def all(self, what: str) -> list[int]:
        """Return the pids of all that are *what*."""
        return self._pids[what]

    def one(self, what: str) -> int:
        """Return the pid of the only *what*."""
        (pid,) = self._pids[what]
        return pid


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    """Send each of *pids* a signal; whoever has ended by then need not be killed."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give a small good image."""
    path = tmp_path / "image"
    subprocess.run(["mkfs.ext4", "-q", path, "4M"], check=True, capture_output=True)
    return path


@pytest.fixture
def direct(image: Path, fuservicemount: Mount, mount_point: Path) -> Iterator[Callable[[], Family]]:
    """Give a function that mounts *image* on *mount_point* and returns the family."""

    def mount() -> Family:
        assert fuservicemount(image, mount_point, *OPTIONS) == (0, "", "")
        family = Family()
        assert len(family) == 3
        return family

    yield mount
    detach_all(mount_point)
    wait_until(lambda: not Family(), "the end of all processes")


def usable(point: Path) -> None:
    """See that *point* is an empty directory again, and that nobody is left."""
    holds_within(USABLE, lambda: mounted(point) is None)
    assert mounted(point) is None
    assert os.listdir(point) == []
    wait_until(lambda: not Family(), "the end of all processes")


def does_not_hang(point: Path) -> None:
    """See that stat(1) of *point* ends in time, whatever it says."""
    subprocess.run(["stat", point], capture_output=True, timeout=USABLE, check=False)


@pytest.mark.parametrize("victims", [("server",), ("supervisor",), ("server", "supervisor"), ("supervisor", "server")])
def test_whoever_is_killed_the_mount_point_is_usable_again(
    direct: Callable[[], Family], mount_point: Path, victims: tuple[str, ...]
) -> None:
    for _ in range(10):
        family = direct()
        kill(*map(family.one, victims))
        does_not_hang(mount_point)
        usable(mount_point)


def test_a_mount_that_is_in_use_is_detached_too(direct: Callable[[], Family], mount_point: Path) -> None:
    family = direct()
    inside = os.open(mount_point, os.O_RDONLY)
    try:
        kill(family.one("server"))
        usable(mount_point)
        with pytest.raises(OSError, match="not connected"):
            os.listdir(inside)
    finally:
        os.close(inside)


@pytest.mark.parametrize("what", ["supervisor", "guard"])
def test_whoever_looks_after_it_may_be_told_to_end(direct: Callable[[], Family], mount_point: Path, what: str) -> None:
    family = direct()
    kill(family.one(what), number=signal.SIGTERM)
    usable(mount_point)


@pytest.mark.parametrize("command", [["umount"], ["umount", "-l"], [PROGRAMS / "fuservice", "umount"]])
def test_nobody_is_left_once_it_is_unmounted(
    direct: Callable[[], Family], mount_point: Path, command: list[str | Path]
) -> None:
    direct()
    subprocess.run([*command, mount_point], check=True, capture_output=True, timeout=20)
    usable(mount_point)


def test_a_stopped_supervisor_keeps_nobody_waiting(direct: Callable[[], Family], mount_point: Path) -> None:
    """He watches the fuse device without holding it, so the server's death ends the connection."""
    family = direct()
    kill(family.one("supervisor"), number=signal.SIGSTOP)
    kill(family.one("server"))
    does_not_hang(mount_point)
    wait_until(lambda: len(Family()) == 2, "the end of the server")
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(mount_point)
    kill(family.one("guard"), number=signal.SIGTERM)  # who has him go on
    usable(mount_point)


def test_an_aborted_connection_is_detached(direct: Callable[[], Family], mount_point: Path) -> None:
    direct()
    there = mounted(mount_point)
    assert there
    (CONNECTIONS / there.device.partition(":")[2] / "abort").write_text("1")
    usable(mount_point)


def test_what_is_mounted_upon_a_dead_mount_stays(direct: Callable[[], Family], mount_point: Path) -> None:
    family = direct()
    kernel.mount("upon", os.fspath(mount_point), "tmpfs")
    kill(family.one("server"))
    wait_until(lambda: not Family(), "the end of all processes")
    there = mounted(mount_point)
    assert there and there.fstype == "tmpfs"


def test_a_later_mount_keeps_no_earlier_one_alive(
    direct: Callable[[], Family], image: Path, fuservicemount: Mount, mount_point: Path,
    make_mount_point: Callable[[str], Path],
) -> None:  # fmt: skip
    """Whoever looks after the second has no copy of the first."""
    first, second = direct().one("server"), make_mount_point("second")
    assert fuservicemount(image, second, *OPTIONS) == (0, "", "")
    try:
        assert len(Family()) == 6
        subprocess.run(["umount", mount_point], check=True)
        wait_until(lambda: len(Family()) == 3, "the end of the first, with its mount")
        assert not Path(f"/proc/{first}/cmdline").exists()
    finally:
        detach_all(second)


def test_in_a_private_namespace_the_mount_point_is_usable_again_too(image: Path, mount_point: Path) -> None:
    """Guard and supervisor are in there, for as long as somebody else is."""
    script = """
        "$@" || exit
        cut -d" " -f5 /proc/self/mountinfo | grep -xF "$0" && echo mounted
        read _
        i=0; while cut -d" " -f5 /proc/self/mountinfo | grep -qxF "$0" && [ $i -lt 500 ]; do sleep 0.01; i=$((i + 1)); done
        ls "$0" && echo usable
    """
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, mount_point, PROGRAMS / "fuservicemount",
             image, mount_point, *OPTIONS]  # fmt: skip
    with subprocess.Popen(list(map(str, words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout and shell.stdin
        assert [shell.stdout.readline(), shell.stdout.readline()] == [f"{mount_point}\n", "mounted\n"]
        kill(Family().one("supervisor"))
        assert shell.communicate("\n", timeout=20)[0] == "usable\n"
    wait_until(lambda: not Family(), "the end of all processes")


def test_a_private_namespace_ends_with_its_last_stranger(image: Path, mount_point: Path, tmp_path: Path) -> None:
    """Two families in one namespace do not keep each other alive, nor a process that somebody else has followed."""
    other = tmp_path / "other"
    other.mkdir()
    program = PROGRAMS / "fuservicemount"
    script = 'sh -c "sleep 0.3" & a="$1"; b="$2"; shift 2; "$@" "$a" -t ext4 -o ro --direct && "$@" "$b" -t ext4 -o ro --direct && wait'
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", mount_point, other, program, image]
    subprocess.run(list(map(str, words)), check=True, timeout=30)
    wait_until(lambda: not Family(), "the end of all processes")
