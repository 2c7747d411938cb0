"""What servers say: line by line, escaped, with names, not too much of it, and never at the cost of others."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.waiting import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.launch.listening import Listening

pytestmark = pytest.mark.needs("root")


def test_a_log_has_lines_with_names_and_without_tricks(listening: Listening) -> None:
    assert listening.ask("talk") == b""
    said = listening.wait_for("last words")
    lines = [line for line in said.splitlines() if line.startswith("5 talk[")]
    pids = {line.partition("]")[0] for line in lines}
    assert len(pids) == 1
    words = [line.partition("]: ")[2] for line in lines]
    assert words[:2] == ["plain", r"escape \x1b[31m and \\xff"]
    assert words[2] == ("long " * 1000)[:200] + "…"
    assert words[3:] == ["last words"]
    assert "\x1b" not in said


def test_a_line_without_an_end_is_cut(listening: Listening) -> None:
    listening.ask("flood")
    listening.wait_for_servers(0)
    lines = [line for line in listening.wait_for("flood[").splitlines() if line.startswith("5 flood[")]
    assert 1 <= len(lines) <= 20
    assert all(len(line) < 250 for line in lines)


def test_a_server_that_closes_its_log_does_not_keep_the_listener_busy(listening: Listening) -> None:
    with listening.connect("closes") as connection:
        assert connection.receive(100) == b"serving"
        before = listening.cpu()
        time.sleep(0.5)
        assert listening.cpu() - before < 0.2
        assert listening.ask("environment")
    listening.wait_for_servers(0)


def test_whoever_shouts_is_cut_short_and_keeps_nobody_waiting(listening: Listening) -> None:
    with listening.connect("shout") as connection:
        assert connection.receive(100) == b"shouting"
        listening.wait_for("lines suppressed")
        before, began = listening.cpu(), time.monotonic()
        for _ in range(20):
            assert listening.ask("hold") == b"serving"
        used, took = listening.cpu() - before, time.monotonic() - began
        print(f"beside a shouting server: 20 others in {took:.2f} s, the listener used {used:.2f} s of processor time")
        listening.wait_for_servers(1)
        (server,) = listening.servers()
        os.kill(server, signal.SIGKILL)
        assert connection.receive(100) == b""
    listening.wait_for_servers(0)
    lines = listening.program.said().splitlines()
    plain = sum(line.endswith("ever the same") for line in lines)
    assert 50 <= plain <= 50 + 10 * (took + 5)
    counts = [int(line.rsplit(" ", 3)[1]) for line in lines if line.endswith(" lines suppressed")]
    assert 1 <= len(counts) <= took + 5 and sum(counts) > 1000


def test_a_talkative_server_is_heard_again_when_it_has_calmed_down(listening: Listening) -> None:
    for _ in range(3):
        listening.ask("talk")
    wait_until(lambda: listening.program.said().count("last words") == 3, "the words of three servers")
