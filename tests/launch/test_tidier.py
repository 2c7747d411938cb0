"""Tidying up after dead servers: in a child, one at a time, and not for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuservice.launch import tidier
from fuservice.launch.loop import Loop
from fuservice.launch.tidier import Tidier
from fuservice.linux import mountinfo


@pytest.fixture
def here() -> str:
    """Give the device of a mount that is there: of our root."""
    return next(mount.device for mount in mountinfo.mounts() if mount.mount_point == "/")


def bury_all(loop: Loop, tidying: Tidier, log: Callable[[], bool]) -> None:
    """Turn *loop*, and reap, as a listener does, until *log* is content."""
    deadline = time.monotonic() + 10
    loop.tick(lambda _now: True)  # a listener is woken by SIGCHLD
    while not log() and time.monotonic() < deadline:
        loop.turn()
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            continue
        if ended is not None:
            assert tidying.bury(ended.si_pid)
    assert log()


def test_only_what_is_mounted_takes_a_process(here: str, tmp_path: Path) -> None:
    told, loop = tmp_path / "told", Loop()

    def tidy(device: str, why: str, say: Callable[[str], None]) -> None:
        with told.open("a") as file:
            file.write(f"{device} {why}\n")

    tidying = Tidier(loop, lambda _level, _line: None, tidy)
    tidying.add({"0:0": "nothing of the kind", here: "signal 9"})
    tidying.finish()
    assert told.read_text() == f"{here} signal 9\n"
    tidying.add({"0:0": "nothing of the kind"})
    tidying.finish()
    assert told.read_text() == f"{here} signal 9\n"


def test_one_that_hangs_is_ended_and_the_next_one_gets_its_turn(
    here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidier, "PATIENCE", 1.0)
    lines: list[str] = []
    hung, loop = tmp_path / "hung", Loop()

    def tidy(_device: str, why: str, _say: Callable[[str], None]) -> None:
        if why == "first":
            hung.touch()
            time.sleep(60)
        (tmp_path / "second").touch()

    tidying = Tidier(loop, lambda _level, line: lines.append(line), tidy)
    tidying.add({here: "first"})
    tidying.add({here: "second"})  # waits for the first
    bury_all(loop, tidying, lambda: (tmp_path / "second").exists())
    tidying.finish()
    assert hung.exists()
    assert lines[0] == "cannot detach what dead servers have left: it takes longer than 1 s"


def test_a_failure_of_ours_is_a_line_of_the_log(here: str, capfd: pytest.CaptureFixture[str]) -> None:
    def tidy(_device: str, _why: str, _say: Callable[[str], None]) -> None:
        raise ValueError("unforeseen")

    def log(_level: int, line: str) -> None:
        os.write(1, line.encode())

    tidying = Tidier(Loop(), log, tidy)
    tidying.add({here: ""})
    tidying.finish()
    assert "tidying up after a dead server: ValueError: unforeseen (" in capfd.readouterr().out
