"""Tables, colours and signs of life: on a terminal alone, and only for those who want them."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from fuservice.cli import waiting
from fuservice.cli.waiting import Waiting
from tests.support.capabilities import PROGRAMS, REPOSITORY

PATIENCE = 20.0


def on_a_terminal(*command: str, **environment: str) -> str:
    """Run a program on a terminal of its own; return what it shows there."""
    ours, theirs = pty.openpty()
    env = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "HOME": "/nonexistent", **environment}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=REPOSITORY, start_new_session=True
    )
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + PATIENCE
    try:
        while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            shown += os.read(ours, 65_536)
    except OSError:  # EIO: the other end was closed
        pass
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.decode()


needs_programs = pytest.mark.needs("installed")


@needs_programs
def test_on_a_terminal_there_is_a_table_with_a_bold_head() -> None:
    head, first, *_ = on_a_terminal(str(PROGRAMS / "fuservice"), "drivers").splitlines()
    assert head.startswith("\x1b[1mtype     driver") and head.endswith("\x1b[0m")
    assert first.split()[:2] == ["ext2", "ext4"] and "\t" not in first


@needs_programs
def test_no_color_means_none() -> None:
    shown = on_a_terminal(str(PROGRAMS / "fuservice"), "drivers", NO_COLOR="1")
    assert "\x1b" not in shown and shown.startswith("type     driver")
    assert "\x1b" in on_a_terminal(str(PROGRAMS / "fuservice"), "drivers", NO_COLOR="")  # as no-color.org has it


@needs_programs
def test_a_terminal_that_is_no_screen_gets_sentences() -> None:
    shown = on_a_terminal(str(PROGRAMS / "fuservice"), "drivers", TERM="dumb")
    assert "\x1b" not in shown and shown.startswith("Type ext2: served by our driver ext4")


@needs_programs
def test_elsewhere_there_are_tabs() -> None:
    done = subprocess.run([PROGRAMS / "fuservice", "drivers"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.splitlines()[0] == "type\tdriver\tversion\taccess\tservice" and "\x1b" not in done.stdout


@needs_programs
def test_whoever_has_read_enough_is_no_reason_for_a_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [PROGRAMS / "fuservice", "drivers"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


SLOW = f"""
import sys, time
sys.path.insert(0, {os.fspath(REPOSITORY / "src")!r})
from fuservice.cli import waiting
waiting.PATIENCE, waiting._EVERY = 0.05, 0.05
with waiting.Waiting("thing\\x1b.img"):
    until = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < until:
        time.sleep(0.01)
print("done", file=sys.stderr)
"""


def test_on_a_terminal_the_sign_of_life_moves_and_goes_away() -> None:
    shown = on_a_terminal(sys.executable, "-c", SLOW, "0.4")
    assert shown.count("\r" + "fuservice: thing\\x1b.img: is being opened, 0 s") > 1
    last = shown.rpartition("done")[0].rpartition("s")[2]
    assert last.strip(" \r") == "" and last.startswith("\r ") and last.endswith("\r")


def test_elsewhere_it_is_one_line_and_none_if_it_is_quick() -> None:
    for seconds, told in (
        ("0.3", "fuservice: thing\\x1b.img: is being opened: this takes longer than usual\ndone\n"),
        ("0", "done\n"),
    ):
        done = subprocess.run([sys.executable, "-c", SLOW, seconds], capture_output=True, text=True, check=True)
        assert done.stderr == told


def test_it_leaves_the_signal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 1000.0)
    before = signal.getsignal(signal.SIGALRM)
    with Waiting("x"):
        assert signal.getsignal(signal.SIGALRM) != before
    assert signal.getsignal(signal.SIGALRM) == before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
