"""`fuservice mount --restart`: servers are killed one after the other while the mount is read, and nobody who reads notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.cli import restarts
from fuservice.errors import PolicyError
from fuservice.launch.restart import MOST
from tests.e2e.test_guard import Family, does_not_hang, kill, usable
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.processes import status
from tests.support.waiting import wait_until

try:
    restarts.check("image", "ext4")
    too_old = ""
except PolicyError as error:
    too_old = str(error)
pytestmark = [
    pytest.mark.needs("root", "fuse", "e2fsprogs", "installed"), pytest.mark.skipif(bool(too_old), reason=too_old or "-"),
]  # fmt: skip

#: Reads all files over and over, from the server and not from the kernel's cache; prints a line for what is not as it was.
READER = """
import hashlib, os, sys
def walk():
    found = {}
    for top, _, names in os.walk(sys.argv[1], onerror=lambda error: print(error, flush=True)):
        for name in names:
            with open(os.path.join(top, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found[top, name] = hashlib.sha256(file.read()).hexdigest()
    return found
first = walk()
print(len(first), flush=True)
rounds = 0
while not os.path.exists(sys.argv[2]):
    try:
        if walk() != first:
            print("another content", flush=True)
    except OSError as error:
        print(error, flush=True)
    rounds += 1
print("rounds" if rounds else "no round", flush=True)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a tree with some files."""
    top = tmp_path / "tree"
    for number in range(40):
        path = top / f"d{number % 4}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000 + 20_000 * number))
    return top


@pytest.fixture
def image(tmp_path: Path, tree: Path) -> Path:
    """Give an image of the tree."""
    path = tmp_path / "image"
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, path, "64M"], check=True, capture_output=True)
    return path


@pytest.fixture
def receipts(tmp_path: Path) -> Iterator[Path]:
    """Cover root's receipts with a directory of the test's own."""
    Path("/var/lib/fuservice").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib/fuservice"], check=True)
    yield Path("/var/lib/fuservice/mounts")
    subprocess.run(["umount", "-l", "/var/lib/fuservice"], check=True)


def mount(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `fuservice mount`."""
    command: list[str | Path] = [PROGRAMS / "fuservice", "mount", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def point(mount_point: Path) -> Iterator[Path]:
    """Give a mount point; in the end nothing is left of what was mounted there."""
    yield mount_point
    detach_all(mount_point)
    wait_until(lambda: not Family(), "the end of all processes")


def reason(receipts: Path) -> str | None:
    """Return why the only mount has ended, None if it has not."""
    told: str | None = json.loads((receipts / "1.json").read_text())["reason"]
    return told


def follow(dead: Family) -> Family:
    """Wait for a successor of the server of *dead*, in its cage; return the family."""
    wait_until(lambda: Family().all("server") not in ([], dead.all("server")), "a successor")
    family = Family()
    wait_until(lambda: status(family.one("server"))["Seccomp"] == "2", "its cage")
    assert [family.one(what) for what in ("supervisor", "guard")] == [
        dead.one(what) for what in ("supervisor", "guard")
    ]
    return family


def test_who_reads_does_not_notice(image: Path, point: Path, receipts: Path, tmp_path: Path) -> None:
    assert mount("--restart", image, point).returncode == 0
    there, stop = mounted(point), tmp_path / "stop"
    with subprocess.Popen([sys.executable, "-c", READER, point, stop], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout and reader.stdout.readline() == "40\n"
        family = Family()
        for _ in range(MOST):
            kill(family.one("server"))
            does_not_hang(point)
            family = follow(family)
        assert sorted(os.listdir(point)) == ["d0", "d1", "d2", "d3", "lost+found"]
        stop.touch()
        assert reader.communicate(timeout=60)[0] == "rounds\n"
    assert mounted(point) == there and reason(receipts) is None
    kill(family.one("server"))  # one more than may follow in a minute
    usable(point)
    assert reason(receipts) == "its server died: signal 9"


def test_a_successor_is_in_the_same_cage(image: Path, point: Path, receipts: Path) -> None:
    """And ends with the mount, as its predecessor would have."""
    assert mount("--restart", image, point).returncode == 0
    first = Family()
    before = status(first.one("server"))
    kill(first.one("server"))
    pid = follow(first).one("server")
    after = status(pid)
    same = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Groups")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert after["Uid"] != before["Uid"] and after["NSpid"].split()[-1] == "1"
    kinds = sorted(os.readlink(path).partition(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir())  # noqa: PTH115
    assert kinds == sorted(["/dev/fuse", "/dev/null", os.fspath(image), "pipe", "pipe"])
    subprocess.run(["umount", point], check=True)
    usable(point)
    assert reason(receipts) == "unmounted"


@pytest.mark.parametrize("what", ["supervisor", "guard"])
def test_whoever_is_told_to_end_has_no_successor(image: Path, point: Path, receipts: Path, what: str) -> None:
    assert mount("--restart", image, point).returncode == 0
    kill(Family().one(what), number=signal.SIGTERM)
    usable(point)
    assert reason(receipts) == "its server died: its supervisor was told to end"


def test_a_supervisor_that_is_killed_has_none_either(image: Path, point: Path, receipts: Path) -> None:
    assert mount("--restart", image, point).returncode == 0
    kill(Family().one("supervisor"))
    usable(point)
    assert reason(receipts) == "its server died: its supervisor ended with signal 9"


@pytest.mark.usefixtures("receipts")
def test_where_it_makes_no_sense_it_is_refused(image: Path, point: Path) -> None:
    for other in ("--private", "--transient"):
        refused = mount("--restart", other, image, point)
        assert (refused.returncode, "--restart is for a server that is started directly" in refused.stderr) == (
            64,
            True,
        )
    with pytest.raises(PolicyError, match="a server of memtree cannot go on"):
        restarts.check("tree", "memtree")
