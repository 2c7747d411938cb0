"""kill -9 of each process in each state: nothing hangs, nothing is left, and who need not die does not.

The helper's own row is test_killed.py. A mount whose server was killed is gone within five seconds, by the listener's hand; if
it is the listener that was killed, the mount answers ENOTCONN at once until the next one comes. The matrix is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.launch.state import directory, read
from tests.e2e.middle import Middle
from tests.e2e.test_killed import ATTACHED, STEPS
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.processes import descendants, warm_processes
from tests.support.waiting import holds_within, wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Listener

pytestmark = pytest.mark.needs("root", "fuse", "e2fsprogs", "installed")

HANGS = 5.0  # seconds after which a stat(2) counts as hanging, and a mount point as lost
#: Reads past the page cache: what is in there can be read when there is no server any more.
ENDLESS = 'while dd if="$0/big" of=/dev/null bs=1M iflag=direct; do :; done; exit 1'
VICTIMS = ("server", "warm", "listener")
#: State → the packet at which the victim is killed; None: no conversation, but a mount, idle or being read.
STATES: dict[str, int | None] = {
    "hello": STEPS.index("LAST"), "argv": STEPS.index("FILE"), "open": STEPS.index("OPEN"), "image": STEPS.index("OPEN") + 1,
    "point": STEPS.index("MNTP"), "mount": STEPS.index("DOIT"), "mounted": ATTACHED, "bye": STEPS.index("BYEE"),
    "idle": None, "reading": None,
}  # fmt: skip


def printed(victims: Iterable[str]) -> Iterator[dict[tuple[str, str], str]]:
    """Yield a matrix of *victims* and states to fill in, and print it in the end."""
    found: dict[tuple[str, str], str] = {}
    yield found
    print(f"\n{'kill -9 of':12}" + "".join(f"{state:>10}" for state in STATES))
    for victim in victims:
        print(f"{victim:12}" + "".join(f"{found.get((victim, state), '-'):>10}" for state in STATES))


@pytest.fixture(scope="module")
def matrix() -> Iterator[dict[tuple[str, str], str]]:
    """Give the matrix to fill in; printed in the end."""
    yield from printed(VICTIMS)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """Give an image with one file of some size."""
    path, tree = tmp_path / "image", tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(1 << 20) * 24)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, path, "48M"], check=True, capture_output=True)
    yield path
    path.unlink()


def pids(listener: Listener, victim: str) -> list[int]:
    """Return the processes of *listener* that are *victim*."""
    if victim == "listener":
        return [listener.program.pid]
    return warm_processes(listener.program.pid) if victim == "warm" else listener.servers()


def kill(listener: Listener, victim: str) -> None:
    """Kill *victim*; return once it is gone."""
    (pid,) = pids(listener, victim)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _lives(pid), f"the end of the {victim}")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def looks(point: Path) -> str:
    """Return what stat(1) says of *point*: "alive", or "dead" for the errors of a connection that is over. AssertionError where it hangs."""
    began = time.monotonic()
    done = subprocess.run(["stat", "-c%F", point], capture_output=True, text=True, timeout=30, check=False)
    assert time.monotonic() - began < HANGS, "stat hung"
    if done.returncode == 0:
        return "alive"
    # The latter is for whoever asked before the connection's end.
    assert done.stderr.strip().endswith(("endpoint is not connected", "caused connection abort")), done.stderr
    return "dead"


def gone(point: Path) -> str:
    """Return "gone" once nothing is mounted on *point* any more, which can be used again. AssertionError if that takes too long."""
    holds_within(HANGS, lambda: mounted(point) is None)
    assert mounted(point) is None and os.listdir(point) == []
    return "gone"


def command(image: Path, point: Path, sockets: Path) -> list[str]:
    """Return the helper's command line."""
    words: list[str | Path] = [
        PROGRAMS / "fuservicemount",
        image,
        point,
        "-t",
        "ext4",
        "-o",
        "ro",
        f"--socket-dir={sockets}",
    ]
    return [os.fspath(word) for word in words]


def in_conversation(listener: Listener, victim: str, step: int, image: Path, point: Path, front: Path) -> str:
    """Kill *victim* at packet *step*; return how the helper ended."""
    front.mkdir()
    with (
        Middle(front / "ext4", listener.sockets / "ext4") as middle,
        subprocess.Popen(command(image, point, front), stderr=subprocess.PIPE, text=True) as helper,
    ):
        middle.relay(step, lambda: kill(listener, victim), go_on=True)
        said = helper.communicate(timeout=30)[1]
    assert "Traceback" not in said, said
    if helper.returncode == 0:
        if victim == "server":
            return gone(point)
        assert mounted(point)
        return {"alive": "mounts", "dead": "dead"}[looks(point)]
    assert (helper.returncode, len(said.splitlines())) == (1, 1), said
    assert mounted(point) is None
    return "exit 1"


def once_mounted(listener: Listener, victim: str, image: Path, point: Path, *, reading: bool) -> str:
    """Kill *victim* while the mount is there, and perhaps read; return how the mount looks then."""
    subprocess.run(command(image, point, listener.sockets), check=True, capture_output=True)
    reader = subprocess.Popen(["sh", "-c", ENDLESS, point], stderr=subprocess.DEVNULL, process_group=0)
    try:
        if not reading:
            end(reader)
        kill(listener, victim)
        found = gone(point) if victim == "server" else looks(point)
        if reading and found != "alive":
            assert reader.wait(HANGS) != 0
    finally:
        end(reader)
    return found


def end(reader: subprocess.Popen[bytes]) -> None:
    """Kill the reader and what it runs; a second call does nothing."""
    if reader.returncode is None:
        os.killpg(reader.pid, signal.SIGKILL)
        reader.wait()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_killed(
    listen: Callable[..., Listener], image: Path, mount_point: Path, tmp_path: Path, victim: str, state: str,
    matrix: dict[tuple[str, str], str],
) -> None:  # fmt: skip
    listener, step = listen("ext4"), STATES[state]
    wait_until(lambda: warm_processes(listener.program.pid), "a warm process")
    try:
        if step is None:
            outcome = once_mounted(listener, victim, image, mount_point, reading=state == "reading")
        else:
            outcome = in_conversation(listener, victim, step, image, mount_point, tmp_path / "front")
        matrix[victim, state] = outcome
        assert outcome in (
            {"mounts", "alive"} if victim == "warm" else {"exit 1", "gone" if victim == "server" else "dead"}
        )
        if victim != "listener":
            _works(listener, image, tmp_path / "again")
    finally:
        detach_all(mount_point)
    wait_until(lambda: not listener.servers(), "the servers end with their mounts")
    if victim == "listener":
        wait_until(
            lambda: not [pid for pid in descendants(listener.program.pid) if _lives(pid)],
            "all that it had started ends",
        )


def _works(listener: Listener, image: Path, point: Path) -> None:
    """See that *listener* serves the next one, who comes right now."""
    point.mkdir()
    try:
        subprocess.run(command(image, point, listener.sockets), check=True, capture_output=True, timeout=20)
        assert sorted(os.listdir(point)) == ["big", "lost+found"]
    finally:
        detach_all(point)


def test_a_listener_follows_a_killed_one(listen: Callable[..., Listener], image: Path, mount_point: Path) -> None:
    """Its socket is in the way, and what it knew of its servers: neither stops the next, who detaches what those have left."""
    killed = listen("ext4")
    subprocess.run(command(image, mount_point, killed.sockets), check=True, capture_output=True)
    (server,) = killed.servers()
    wait_until(lambda: "device" in (read(directory(), str(server)) or {}), "a record of where it is mounted")
    kill(killed, "listener")
    assert looks(mount_point) == "dead"
    listed: list[str | Path] = [PROGRAMS / "fuservice", "list"]
    assert "ext4" in subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    words: list[str | Path] = [PROGRAMS / "fuservice", "listen", "ext4", "--socket-dir", killed.sockets]
    following = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert following.stdout and following.stdout.readline().startswith("listening on ")
        gone(mount_point)
        subprocess.run(command(image, mount_point, killed.sockets), check=True, capture_output=True)
        assert sorted(os.listdir(mount_point)) == ["big", "lost+found"]
    finally:
        detach_all(mount_point)
        following.terminate()
        following.communicate(timeout=20)


def test_a_stopped_listener_keeps_nobody_waiting(
    listen: Callable[..., Listener], image: Path, mount_point: Path
) -> None:
    """It watches fuse devices without holding them, so a server's death ends the connection; the mount goes when it goes on."""
    listener = listen("ext4")
    subprocess.run(command(image, mount_point, listener.sockets), check=True, capture_output=True)
    (server,) = listener.servers()
    wait_until(lambda: "device" in (read(directory(), str(server)) or {}), "a record of where it is mounted")
    os.kill(listener.program.pid, signal.SIGSTOP)
    try:
        kill(listener, "server")
        assert looks(mount_point) == "dead"
    finally:
        os.kill(listener.program.pid, signal.SIGCONT)
    gone(mount_point)
