"""A driver that is taken over reads no file, reaches no socket, does not outlive its mount, and does not disturb another mount."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launch.listening import Listening
from tests.prove.takenover import AT_READ, NAME, PROGRAM
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import mounted
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("root", "fuse", "installed")

SECRET = "the canary sings"
GOOD = f"{AT_READ}loot = b'good'"


class Field:
    """A listener, what an attacker looks for, and a mount beside his that must go on undisturbed."""

    def __init__(self, listening: Listening, directory: Path, make_mount_point: Callable[[str], Path]) -> None:
        self.listening, self.directory, self._make = listening, directory, make_mount_point
        self.canary = directory / "canary"
        self.canary.write_text(SECRET)
        self.good = self.mounted("good", GOOD)
        (self.neighbour,) = listening.servers()

    def mount(self, name: str, image: str) -> tuple[int, Path]:
        """Mount *image*, which is text; return the exit code of the helper, and where."""
        source, point = self.directory / f"{name}.img", self._make(name)
        source.write_text(image)
        words: list[str | Path] = [source, point, "-t", NAME, "-o", "ro", f"--socket-dir={self.listening.directory}"]
        done = subprocess.run([PROGRAMS / "fuservicemount", *words], capture_output=True, check=False, timeout=30)
        return done.returncode, point

    def mounted(self, name: str, image: str) -> Path:
        """Mount an *image* that lets itself be mounted."""
        code, point = self.mount(name, image)
        assert code == 0 and mounted(point), self.listening.program.said()
        return point

    def attack(self, code: str) -> str:
        """Have *code* run before the mount, and at a read; return all that came out, and what the log says."""
        told, early = self.mount("early", code)
        late = self.mounted("late", f"{AT_READ}{code}")
        loot = read(late)
        for point in (early, late):
            if mounted(point):
                kernel.umount2(os.fspath(point), kernel.MNT_DETACH)
        self.only_the_neighbour_is_left()
        return f"exit code {told}; {loot}; {self.listening.program.said()}"

    def only_the_neighbour_is_left(self) -> None:
        """Wait until no server but the neighbour's lives, which serves on, and so does the listener."""
        wait_until(lambda: self.listening.servers() == [self.neighbour], "the taken-over servers to end", 20.0)
        began = time.monotonic()
        assert read(self.good).startswith("good")
        print(f"the other mount answers within {(time.monotonic() - began) * 1000:.1f} ms")
        point = self.mounted("after", GOOD)
        assert read(point) == "good"
        kernel.umount2(os.fspath(point))
        wait_until(lambda: self.listening.servers() == [self.neighbour], "the server of a third mount to end")


def read(point: Path) -> str:
    """Return what reading the mount gives: loot, or an error."""
    try:
        return (point / "loot").read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError as error:
        return error.strerror or ""


@pytest.fixture
def field(tmp_path: Path, make_mount_point: Callable[[str], Path]) -> Iterator[Field]:
    """Give the field; every mount is detached before the listener is told to end."""
    points: list[Path] = []

    def make(name: str) -> Path:
        points.append(make_mount_point(f"{name}{len(points)}"))
        return points[-1]

    for directory in (tmp_path, *tmp_path.parents[:3]):  # the canary is world-readable, and so are the ways to it
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    listening = Listening([*PROGRAM, "listen", str(tmp_path / "s")], tmp_path / "log", tmp_path / "s")
    try:
        listening.wait_for("ready")
        yield Field(listening, tmp_path, make)
    finally:
        for point in points:
            if mounted(point):
                kernel.umount2(os.fspath(point), kernel.MNT_DETACH)
        listening.program.stop()


@pytest.mark.parametrize(
    ("way", "refused"),
    [
        ("loot = open({path!r}, 'rb').read()", "openat"),
        ("loot = os.read(call('openat', -100, {path!r}.encode(), 0), 99)", "openat"),
        ("os.chdir('/'); loot = open('../../..' + {path!r}, 'rb').read()", "chdir"),
        ("loot = os.read(os.open('/proc/self/root' + {path!r}, 0), 99)", "openat"),
    ],
    ids=["open", "openat", "chdir", "proc"],
)
def test_it_reads_no_file(field: Field, way: str, refused: str) -> None:
    said = field.attack(way.format(path=os.fspath(field.canary)))
    assert SECRET not in said
    assert said.count(f"killed: tried the system call {refused}, which its cage forbids") == 2
    assert field.canary.read_text() == SECRET


def test_it_reaches_no_socket(field: Field) -> None:
    path = os.fspath(field.directory / "socket")
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(path)
        unix.listen()
        os.chmod(path, 0o666)  # noqa: PTH101
        for family, address in ((1, f"unix_address({path!r})"), (2, f"inet_address({tcp.getsockname()[1]})")):
            code = f"a = {address}; call('connect', call('socket', {family}, 1, 0), a, len(a)); loot = b'reached it'"
            said = field.attack(code)
            assert "reached" not in said
            assert said.count("killed: tried the system call socket, which its cage forbids") >= 2
        for listener in (unix, tcp):
            listener.setblocking(False)  # noqa: FBT003
            with pytest.raises(BlockingIOError):
                listener.accept()


@pytest.mark.parametrize(
    ("way", "refused"),
    [
        ("pid = call('clone', 17, 0, 0, 0, 0)", "clone"),
        ("os.fork()", "clone"),
        ("os.setsid()", "setsid"),
        ("call('prctl', 1, 0, 0, 0, 0)", "prctl"),  # PR_SET_PDEATHSIG: none
    ],
    ids=["clone", "fork", "setsid", "parent death"],
)
def test_it_makes_no_process_that_outlives_it(field: Field, way: str, refused: str) -> None:
    assert field.attack(way).count(f"killed: tried the system call {refused}, which its cage forbids") == 2


#: Ways of not ending: a loop that nothing interrupts, a loop that sleeps, and deaf ears.
STUBBORN = {
    "loops": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "waits": "while True:\n    try:\n        call('poll', None, 0, 1000)\n    except BaseException:\n        pass",
    "ignores signals": "for n in 1, 2, 14, 15:\n    signal.signal(n, signal.SIG_IGN)\nwhile True:\n    pass",
}


@pytest.mark.parametrize("way", STUBBORN)
def test_it_does_not_outlive_its_mount(field: Field, way: str) -> None:
    point = field.mounted("stubborn", f"{AT_READ}{STUBBORN[way]}")
    with subprocess.Popen(["cat", point / "loot"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        time.sleep(1)  # for the attacker's code to run, which may be killed for how it begins
        done = subprocess.run([PROGRAMS / "fuservice", "umount", point], capture_output=True, text=True, check=False)
        print(done.stderr)
        if mounted(point):
            kernel.umount2(os.fspath(point), kernel.MNT_DETACH)
        reader.send_signal(signal.SIGKILL)
    field.only_the_neighbour_is_left()


@pytest.mark.parametrize(
    "way",
    [
        "os.kill({neighbour}, 9)",
        "call('ptrace', 0x4206, {neighbour}, 0, 0)",
        "call('pidfd_open', {neighbour}, 0)",
        "call('kill', -1, 19)",
        "call('setpriority', 0, 0, 19)",
    ],
    ids=["kill", "ptrace", "pidfd", "kill all", "setpriority"],
)
def test_it_does_not_touch_the_server_of_another_mount(field: Field, way: str) -> None:
    said = field.attack(way.format(neighbour=field.neighbour))
    assert said.count("killed: tried the system call ") == 2


def test_it_does_not_fill_the_memory(field: Field) -> None:
    fill = "kept = []\nwhile True:\n    kept.append(mmap.mmap(-1, 64 << 20))"  # never touched: the machine has others
    said = field.attack(fill)
    assert said.count("refused: OSError(12, 'Cannot allocate memory')") == 2


def test_it_does_not_drown_the_log(field: Field) -> None:
    said = field.attack("for _ in range(2000):\n    os.write(2, b'drowning\\n' * 100)")
    assert said.count("drowning") < 1000 and "lines suppressed" in said
