"""The listener: what a server is given, and the end of a server, of the listener, and of both."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fuservice.cage.credentials import FIRST_UID
from fuservice.errors import printable
from tests.launch.listening import Listening
from tests.launch.toys import BROKEN, SERVICES
from tests.support.processes import status
from tests.support.waiting import holds_within, wait_until

pytestmark = pytest.mark.needs("root")

Start = Callable[..., Listening]


def test_every_type_has_a_socket_of_the_right_mode(listening: Listening) -> None:
    assert sorted(os.listdir(listening.directory)) == sorted(SERVICES)
    for path in listening.directory.iterdir():
        mode = path.lstat().st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o220
    assert stat.S_IMODE(listening.directory.stat().st_mode) == 0o755


def opened(pid: int) -> dict[str, str]:
    """Return what process *pid* has open: number → kind."""
    directory = f"/proc/{pid}/fd"
    return {name: os.readlink(f"{directory}/{name}").partition(":")[0] for name in os.listdir(directory)}  # noqa: PTH115


def test_a_server_has_its_connection_its_log_and_nothing_else(listening: Listening) -> None:
    with listening.connect("hold") as connection:
        assert connection.receive(100) == b"serving"
        (server,) = listening.servers()
        # 4 is where a server shows its fuse device to the listener, which is the first that it does.
        assert opened(server) == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket", "4": "socket"}
    told = json.loads(listening.ask("environment"))
    assert told == {
        "LISTEN_FDS": "1", "LISTEN_PID": str(told["pid"]), "LISTEN_FDNAMES": "connection", "LANG": "C.UTF-8",
        "FUSERVICE_STATUS": "1", "FUSERVICE_SUPERVISOR": "4", "TZ": "UTC0", "pid": told["pid"],
    }  # fmt: skip


def test_a_server_is_in_its_cage_and_its_ids_are_its_own(listening: Listening) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(listening.connect("hold")).receive(100)
        for pid in listening.servers():
            lines = status(pid)
            assert lines["Uid"].split() == [str(FIRST_UID + pid)] * 4 and lines["Groups"] == ""
            assert int(lines["CapPrm"], 16) == int(lines["CapBnd"], 16) == 0
            assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
            assert lines["NSpid"].split() == [str(pid), "1"]
            assert lines["PPid"] == str(listening.program.pid)


def test_many_servers_at_once_each_get_their_own_connection(listening: Listening) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(listening.connect("hold")) for _ in range(60)]
        assert [connection.receive(100) for connection in connections] == [b"serving"] * 60
        for connection in connections:
            connection.send(b"are you there?")
            assert connection.receive(100) == b"still"
        listening.wait_for_servers(60)
        assert opened(listening.servers()[-1]) == {
            "0": "/dev/null",
            "1": "pipe",
            "2": "pipe",
            "3": "socket",
            "4": "socket",
        }
    listening.wait_for_servers(0)


def test_200_connections_leave_nothing_in_the_listener(listening: Listening) -> None:
    before = listening.descriptors()
    for _ in range(195):
        assert listening.ask("hold") == b"serving"
    for name in ("fails", "crashes", "raises", "forbidden", "closes"):
        listening.ask(name)
    listening.wait_for_servers(0)
    wait_until(lambda: listening.descriptors() == before, f"{before}, not {listening.descriptors()}")
    assert os.listdir(f"{listening.directory}-servers") == []


# ---- how a server ends ----


@pytest.mark.parametrize(
    ("name", "end"), [("fails", "server ended with exit status 3"), ("crashes", "server ended with signal 11")]
)
def test_a_bad_end_is_told(listening: Listening, name: str, end: str) -> None:
    listening.ask(name)
    said = listening.wait_for(end)
    assert f"]: {end}" in said and f"4 {name}[" in said


def test_a_good_end_is_not_told(listening: Listening) -> None:
    listening.ask("hold")
    listening.wait_for_servers(0)
    assert listening.ask("environment")
    assert "hold[" not in listening.program.said()


def test_a_bug_is_a_line_in_the_log_and_with_debug_a_traceback(listening: Listening, start: Start) -> None:
    listening.ask("raises")
    said = listening.wait_for("server ended with exit status 70")
    assert "]: RuntimeError: a bug in a server (toys.py:" in said and "Traceback" not in said
    listening.program.stop()
    debugging = start("debug=1")
    debugging.ask("raises")
    said = debugging.wait_for("server ended with exit status 70")
    assert "]: Traceback (most recent call last):" in said and "]: RuntimeError: a bug in a server" in said


def test_a_forbidden_system_call_is_named_and_ends_the_server(listening: Listening) -> None:
    assert listening.ask("forbidden") == b""
    said = listening.wait_for("server ended with signal 9")
    assert "]: killed: tried the system call openat, which its cage forbids" in said
    assert listening.ask("hold") == b"serving"


def test_a_server_has_no_timer_with_which_to_take_a_forbidden_call_back(listening: Listening) -> None:
    assert listening.ask("interrupts") == b""
    said = listening.wait_for("server ended with signal 9")
    assert "]: killed: tried the system call setitimer, which its cage forbids" in said


def test_a_server_whose_supervision_cannot_be_arranged_is_killed(listening: Listening) -> None:
    with listening.connect("babbles"):
        said = listening.wait_for("server ended with signal 9")
    assert "]: killed: what it hands over cannot be taken: a packet that was cut" in said
    assert listening.ask("hold") == b"serving"


def test_a_weaker_cage_has_no_supervision_and_no_seccomp(start: Start) -> None:
    listening = start("without=seccomp,pid")
    with listening.connect("hold") as connection:
        assert connection.receive(100) == b"serving"
        (server,) = listening.servers()
        assert status(server)["Seccomp"] == "0" and opened(server).keys() == {"0", "1", "2", "3", "4"}
    assert listening.ask("forbidden") == b"serving"
    listening.wait_for_servers(0)


def test_a_cage_that_cannot_be_built_stops_the_start(tmp_path: Path, start: Start) -> None:
    """Without any right to namespaces: root of nothing."""
    with pytest.raises(AssertionError) as error:
        start(before=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"))
    said = str(error.value)
    assert "hold: cannot start a server: Operation not permitted" in said
    assert "SystemCallError: hold: no server can be started, for the reason above" in said
    assert not (tmp_path / "s").exists()


def test_a_driver_that_cannot_be_imported_stops_the_start(start: Start) -> None:
    with pytest.raises(AssertionError) as error:
        start(f"more={BROKEN}")
    said = str(error.value)
    assert "RuntimeError: cannot be imported" in said
    assert f"3 {BROKEN}: cannot start a server: its warm process has ended" in said


# ---- what is recorded ----


def recorded(listening: Listening, pid: int) -> dict[str, str]:
    """Return what is recorded of the server *pid*."""
    lines = Path(f"{listening.directory}-servers/{pid}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_live_server_is_recorded_with_what_it_says_of_itself(listening: Listening) -> None:
    with listening.connect("states") as connection:
        assert connection.receive(100) == b"serving"
        (server,) = listening.servers()
        wait_until(lambda: "status.inflated" in recorded(listening, server), "its state")
        facts = recorded(listening, server)
        assert (facts.pop("start")).isdigit()
        assert facts == {
            "pid": str(server), "type": "states", "caller": "0", "cage": "as typed",
            "status.mountpoint": "/mnt/a\\134040b", "status.inflated": "8",
        }  # fmt: skip
        lines = [line for line in listening.wait_for("said afterwards").splitlines() if f"states[{server}]" in line]
        label = f"5 states[{server}] on /mnt/a\\040b: "
        words = ["\x01status bad key=1", "\x01status x=" + "y" * 600, "\x01status esc=\x1b[m", "said afterwards"]
        assert lines == [label + printable(word) for word in words]
    listening.wait_for_servers(0)
    wait_until(lambda: os.listdir(f"{listening.directory}-servers") == [], "the record to be gone")


def test_a_new_listener_forgets_the_servers_of_a_dead_one(start: Start) -> None:
    first = start()
    with first.connect("hold") as connection:
        connection.receive(100)
        left = Path(f"{first.directory}-servers") / str(first.servers()[0])
        assert left.exists()
        first.signal(9)
        wait_until(first.program.ended, "the end")
        assert connection.receive(100) == b""
        assert left.exists()
        start()
        assert not left.exists()


# ---- the end ----


def test_idle_it_ends_at_once_and_takes_its_sockets_along(listening: Listening) -> None:
    (warm,) = listening.warm()
    assert listening.program.stop() == 0
    assert listening.program.said().endswith("ended\n")
    assert os.listdir(listening.directory) == []
    assert is_gone(warm)


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


def test_a_second_signal_ends_the_servers_too(listening: Listening) -> None:
    with listening.connect("hold") as connection:
        connection.receive(100)
        (server,) = listening.servers()
        listening.signal(15)
        wait_until(lambda: os.listdir(listening.directory) == [], "the sockets to be gone")
        listening.signal(15)
        wait_until(listening.program.ended, "the end")
        assert f"4 hold[{server}]: killed: the listener ends" in listening.program.said()
        assert connection.receive(100) == b""
    assert is_gone(server) and os.listdir(f"{listening.directory}-servers") == []


def test_killed_it_takes_everything_along(listening: Listening) -> None:
    with listening.connect("hold") as connection:
        connection.receive(100)
        processes = [*listening.servers(), *listening.warm()]
        assert len(processes) == 2
        listening.signal(9)
        wait_until(lambda: all(map(is_gone, processes)), "the end of all of them")
        assert connection.receive(100) == b""


def is_gone(pid: int) -> bool:
    """Say whether process *pid* has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
