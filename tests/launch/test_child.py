"""Between fork and serving: whatever numbers the descriptors had, they come to their places, and nothing else stays open."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fuservice.launch.child import become_server
from fuservice.linux.fdsockets import FdSeqPacket


def serve() -> int:
    """Say on the connection and in the log what is open."""
    os.write(3, ",".join(sorted(os.listdir("/proc/self/fd"))).encode())  # one more: the directory itself
    os.write(1, b"out ")
    os.write(2, b"err")
    return int(os.read(0, 1) != b"")


@pytest.mark.parametrize(
    ("connection", "log"),
    [(100, 101), (101, 100), (102, 103), (103, 102), (3, 4), (4, 3), (1, 2), (2, 1), (0, 3), (3, 0), (7, 200)],
)
def test_any_numbers_come_to_their_places(connection: int, log: int, tmp_path: Path) -> None:
    here, there = FdSeqPacket.pair()
    with here, there, (tmp_path / "log").open("wb") as output:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            high = [os.dup2(fd, 300 + place) for place, fd in enumerate((there.fileno(), output.fileno()))]
            become_server(os.dup2(high[0], connection), os.dup2(high[1], log), (), serve)
        there.close()
        assert here.receive(100) == b"0,1,2,3,4"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "log").read_text() == "out err"


def test_an_exception_of_any_kind_is_an_exit_code_and_a_traceback(tmp_path: Path) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    here, there = FdSeqPacket.pair()
    with here, there, (tmp_path / "log").open("wb") as output:
        pid = os.fork()
        if pid == 0:
            become_server(there.fileno(), output.fileno(), (), interrupted)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 70
    assert (tmp_path / "log").read_text().endswith("KeyboardInterrupt\n")
