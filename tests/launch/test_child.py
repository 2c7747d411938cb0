"""Between clone and serving: whatever numbers the descriptors had, they come to their places, and nothing else stays open."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fuservice.cage.plan import WALLS
from fuservice.launch.child import DEBUG, ENTERED, Contained, Starter, become_server
from fuservice.linux.channel import Channel
from fuservice.linux.fdsockets import FdSeqPacket


def serve(name: str) -> int:
    """Say on the connection and in the log what is open."""
    os.write(3, ",".join([name, *sorted(os.listdir("/proc/self/fd"))]).encode())  # one more: the directory itself
    os.write(1, b"out ")
    os.write(2, b"err")
    return int(os.read(0, 1) != b"")


@pytest.mark.parametrize(
    ("connection", "log", "handover"),
    [
        (100, 101, 102), (101, 100, 99), (3, 4, 5), (4, 3, 2), (1, 2, 3), (2, 1, 4), (0, 3, 1), (3, 0, 2), (4, 1, 0),
        (7, 200, 3),
    ],
)  # fmt: skip
def test_any_numbers_come_to_their_places(connection: int, log: int, handover: int, tmp_path: Path) -> None:
    here, there = FdSeqPacket.pair()
    ours, theirs = Channel.pair()
    with here, there, theirs, (tmp_path / "log").open("wb") as output:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            numbers = there.fileno(), output.fileno(), theirs.fileno()
            high = [os.dup2(fd, 300 + place) for place, fd in enumerate(numbers)]
            fds = [os.dup2(fd, to) for fd, to in zip(high, (connection, log, handover), strict=True)]
            become_server("toy", fds, lambda: Contained(serve), Starter(), WALLS)
        there.close()
        assert here.receive(100) == b"toy,0,1,2,3,4,5"  # 5 is the directory
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [ours.receive(100).data for _ in range(2)] == [ENTERED, b""]
    ours.close()
    assert (tmp_path / "log").read_text() == "out err"


def run(log: Path, load: Callable[[], Contained], *, debug: bool = False, trial: bool = False) -> tuple[int, str]:
    """Return exit code and log of a server without walls."""
    here, there = FdSeqPacket.pair()
    ours, theirs = Channel.pair()
    with here, there, theirs, log.open("wb") as output:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            if debug:
                os.environ[DEBUG] = "1"
            fds = [there.fileno(), output.fileno(), theirs.fileno()]
            become_server("toy", fds, load, Starter(), WALLS, trial=trial)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ours.close()
    return code, log.read_text()


def interrupted(_: str) -> int:
    """Fail in an unusual way."""
    raise KeyboardInterrupt("now")


def test_an_exception_of_any_kind_is_an_exit_code_and_a_line(tmp_path: Path) -> None:
    code, said = run(tmp_path / "log", lambda: Contained(interrupted))
    assert code == 70 and said.startswith("KeyboardInterrupt: now (test_child.py:") and said.count("\n") == 1
    code, said = run(tmp_path / "log", lambda: Contained(interrupted), debug=True)
    assert code == 70 and said.startswith("Traceback") and said.endswith("KeyboardInterrupt: now\n")


def test_a_trial_serves_nobody(tmp_path: Path) -> None:
    assert run(tmp_path / "log", lambda: Contained(interrupted), trial=True) == (0, "")


def test_a_driver_that_starts_threads_is_not_contained(tmp_path: Path) -> None:
    def load() -> Contained:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return Contained(serve)

    code, said = run(tmp_path / "log", load)
    assert code == 70
    assert said.startswith("RuntimeError: the driver has started threads while it was imported")
