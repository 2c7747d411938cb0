"""The listener: what a server is given, what becomes of its words and its end, and what it cannot do to others."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.launch.listening import Listening
from tests.launch.toys import QUICK, SERVICES
from tests.support.waiting import holds_within, wait_until

pytestmark = pytest.mark.needs("root")

Start = Callable[..., Listening]


def test_every_type_has_a_socket_of_the_right_mode(listening: Listening) -> None:
    assert sorted(os.listdir(listening.directory)) == sorted(SERVICES)
    for path in listening.directory.iterdir():
        mode = path.lstat().st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o220
    assert stat.S_IMODE(listening.directory.stat().st_mode) == 0o755


def test_a_server_has_its_connection_its_log_and_nothing_else(listening: Listening) -> None:
    told = listening.told()
    assert told["fds"] == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket"}
    assert told["environment"] == {
        "LISTEN_FDS": "1", "LISTEN_PID": str(told["pid"]), "LISTEN_FDNAMES": "connection", "LANG": "C.UTF-8",
    }  # fmt: skip
    assert told["default"] == [True, True, True]


def test_a_server_is_in_its_cage(listening: Listening) -> None:
    status = listening.told()["status"]
    assert isinstance(status, dict)
    assert status["Uid"].split() == ["65534"] * 4 and status["Groups"].strip() == ""
    assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_many_servers_at_once_each_get_their_own_connection(listening: Listening) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(listening.connect("hold")) for _ in range(60)]
        assert [connection.receive(100) for connection in connections] == [b"serving"] * 60
        for connection in connections:
            connection.send(b"are you there?")
            assert connection.receive(100) == b"still"
        listening.wait_for_servers(60)
        assert listening.told()["fds"] == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket"}
    listening.wait_for_servers(0)


def test_200_connections_leave_nothing_in_the_listener(listening: Listening) -> None:
    before = listening.descriptors()
    for _ in range(195):
        assert listening.ask("hold") == b"serving"
    for name in ("fails", "dies", "raises", "talk", "closes"):
        listening.ask(name)
    listening.wait_for_servers(0)
    wait_until(lambda: listening.descriptors() == before, f"{before}, not {listening.descriptors()}")


# ---- what a server says ----


def test_a_log_has_lines_with_names_and_without_tricks(listening: Listening) -> None:
    assert listening.ask("talk") == b""
    said = listening.wait_for("last words")
    lines = [line for line in said.splitlines() if line.startswith("talk[")]
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
    lines = [line for line in listening.wait_for("flood[").splitlines() if line.startswith("flood[")]
    assert 1 <= len(lines) <= 20
    assert all(len(line) < 250 for line in lines)


@pytest.mark.parametrize(
    ("name", "end"), [("fails", "server ended with exit status 3"), ("dies", "server ended with signal 9")]
)
def test_a_bad_end_is_told(listening: Listening, name: str, end: str) -> None:
    listening.ask(name)
    said = listening.wait_for(end)
    assert f"]: {end}" in said and f"{name}[" in said


def test_a_good_end_is_not_told(listening: Listening) -> None:
    listening.ask("hold")
    listening.wait_for_servers(0)
    assert listening.ask("tell")
    assert "hold[" not in listening.program.said()


def test_a_bug_shows_its_traceback_in_the_log(listening: Listening) -> None:
    listening.ask("raises")
    said = listening.wait_for("server ended with exit status 70")
    assert "]: RuntimeError: a bug in a server" in said


def test_a_server_that_closes_its_log_does_not_keep_the_listener_busy(listening: Listening) -> None:
    with listening.connect("closes") as connection:
        assert connection.receive(100) == b"serving"
        before = listening.cpu()
        time.sleep(0.5)
        assert listening.cpu() - before < 0.2
        assert listening.ask("tell")
    listening.wait_for_servers(0)


# ---- limits ----


def test_beyond_the_most_servers_connections_are_closed_and_later_ones_served(start: Start) -> None:
    """100 descriptors suffice for 18 servers: the next ones are refused, none waits, and nothing needs a restart."""
    listening = start("prlimit", "--nofile=100:100")
    with ExitStack() as stack:
        connections = [stack.enter_context(listening.connect("hold")) for _ in range(25)]
        answers = [connection.receive(100) for connection in connections]
        assert answers == [b"serving"] * 18 + [b""] * 7
        assert "hold: 18 servers are alive, which is the most: refused uid 0" in listening.program.said()
        before = listening.cpu()
        time.sleep(0.3)
        assert listening.cpu() - before < 0.15
    listening.wait_for_servers(0)
    assert listening.ask("hold") == b"serving"


def test_a_connection_that_says_nothing_is_ended_within_the_deadline(listening: Listening) -> None:
    with listening.connect("memtree") as silent:
        begun = time.monotonic()
        assert silent.receive(100) == b""
        assert QUICK * 0.9 < time.monotonic() - begun < QUICK + 2
    said = listening.wait_for("server ended with exit status 1")
    assert "the helper said nothing for" in said


def test_connections_that_are_gone_at_once_are_nothing(listening: Listening) -> None:
    for _ in range(20):
        listening.connect("memtree").close()
    assert listening.ask("hold") == b"serving"
    listening.wait_for_servers(0)


# ---- the end ----


def test_idle_it_ends_at_once_and_takes_its_sockets_along(listening: Listening) -> None:
    assert listening.program.stop() == 0
    assert listening.program.said().endswith("ended\n")
    assert os.listdir(listening.directory) == []


def test_a_socket_that_somebody_removed_is_no_reason_to_fail(listening: Listening) -> None:
    (listening.directory / "hold").unlink()
    assert listening.program.stop() == 0
    assert "Traceback" not in listening.program.said()


@pytest.mark.parametrize("number", [2, 15])
def test_while_a_server_lives_it_listens_no_more_and_waits(listening: Listening, number: int) -> None:
    with listening.connect("hold") as connection:
        connection.receive(100)
        listening.signal(number)
        wait_until(lambda: os.listdir(listening.directory) == [], "the sockets to be gone")
        assert not holds_within(0.3, listening.program.ended)
        connection.send(b"are you there?")
        assert connection.receive(100) == b"still"
    wait_until(listening.program.ended, "the end")
    assert listening.program.stop() == 0


def test_a_second_signal_ends_it_and_leaves_the_servers(listening: Listening) -> None:
    with listening.connect("hold") as connection:
        connection.receive(100)
        (server,) = listening.servers()
        listening.signal(15)
        wait_until(lambda: os.listdir(listening.directory) == [], "the sockets to be gone")
        listening.signal(15)
        wait_until(listening.program.ended, "the end")
        assert f"hold[{server}]: goes on serving its mount without a log" in listening.program.said()
        still_serves(connection.send, connection.receive)
    wait_until(lambda: is_gone(server), "the server's end")


def test_killed_it_leaves_the_servers(listening: Listening) -> None:
    with listening.connect("hold") as connection:
        connection.receive(100)
        listening.signal(9)
        wait_until(listening.program.ended, "the end")
        still_serves(connection.send, connection.receive)


def still_serves(send: Callable[[bytes], None], receive: Callable[[int], bytes]) -> None:
    """Talk to a server whose listener is gone."""
    for _ in range(3):
        send(b"are you there?")
        assert receive(100) == b"still"


def is_gone(pid: int) -> bool:
    """Say whether process *pid* has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
