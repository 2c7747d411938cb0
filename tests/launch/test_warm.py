"""The warm process: what it holds, when it is replaced, and what becomes of connections when it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from fuservice.launch import warm
from tests.launch.listening import Listening
from tests.launch.test_activator import is_gone, opened
from tests.launch.toys import BROKEN, COLD, FLAWED, flaw
from tests.support.processes import status
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("root")

Start = Callable[..., Listening]


def exec_time(pid: int) -> int:
    """Return a number that changes when process *pid* executes a program: where its stack lies (proc_pid_stat(5), field 28)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[25])


def test_it_holds_few_descriptors_and_few_rights(listening: Listening) -> None:
    (pid,) = listening.warm()
    kinds = {name: kind for name, kind in opened(pid).items() if kind != "anon_inode"}
    assert kinds == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket"}
    lines = status(pid)
    held = {number for number in range(64) if int(lines["CapPrm"], 16) >> number & 1}
    assert held == {2, 6, 7, 8, 21} and lines["NoNewPrivs"] == "1"
    assert lines["CapInh"].strip("0") == ""


def test_a_listener_imports_no_driver_and_no_engine() -> None:
    code = "import sys; from fuservice.cli import main; main.parser(['listen']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("fuservice.")}
    assert "fuservice.launch.activator" in loaded
    foreign = {
        name for name in loaded if name.startswith(("fuservice.drivers.", "fuservice.fuse", "fuservice.service"))
    }
    assert foreign == {"fuservice.drivers.catalog"}


def test_killed_it_is_replaced_and_its_servers_live_on(listening: Listening) -> None:
    with listening.connect("hold") as before:
        assert before.receive(100) == b"serving"
        (first,) = listening.warm()
        os.kill(first, signal.SIGKILL)
        said = listening.wait_for("ended with signal 9")
        assert f"4 hold: warm process {first}: ended with signal 9" in said
        assert listening.ask("hold") == b"serving"
        (second,) = listening.warm()
        assert second != first
        before.send(b"are you there?")
        assert before.receive(100) == b"still"
    listening.wait_for_servers(0)


def test_stopped_and_killed_with_connections_waiting_none_is_lost(listening: Listening) -> None:
    (first,) = listening.warm()
    os.kill(first, signal.SIGSTOP)
    with ExitStack() as stack:
        connections = [stack.enter_context(listening.connect("hold")) for _ in range(20)]
        os.kill(first, signal.SIGKILL)
        assert [connection.receive(100) for connection in connections] == [b"serving"] * 20
    listening.wait_for_servers(0)


def test_killed_again_and_again_while_it_works(listening: Listening) -> None:
    """Whenever the kill comes, a connection is served, or closed after two attempts; nothing hangs, nothing stays behind."""
    before = listening.descriptors()
    answers = []
    for turn in range(30):
        with listening.connect("hold") as connection:
            time.sleep(turn % 10 * 0.002)
            for pid in listening.warm():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            answers.append(connection.receive(100))
    print(f"served {answers.count(b'serving')} of {len(answers)}")
    assert answers.count(b"serving") >= 25
    listening.wait_for_servers(0)
    assert listening.ask("hold") == b"serving"
    listening.wait_for_servers(0)
    wait_until(lambda: listening.descriptors() == before, f"{before}, not {listening.descriptors()}")


def test_silent_for_too_long_it_is_killed_and_the_connection_served(start: Start) -> None:
    listening = start("longest_birth=0.5")
    (first,) = listening.warm()
    os.kill(first, signal.SIGSTOP)
    assert listening.ask("hold") == b"serving"
    assert f"3 hold: warm process {first}: killed: silent for 0 s" in listening.program.said()
    assert is_gone(first)


def test_after_so_many_servers_it_begins_anew(start: Start) -> None:
    listening = start("most=3")
    (pid,) = listening.warm()
    stacks = set()
    for _ in range(10):
        assert listening.ask("hold") == b"serving"
        stacks.add(exec_time(pid))
    assert listening.warm() == [pid]
    assert len(stacks) >= 3
    listening.wait_for_servers(0)


def changed(before: Mapping[int, int]) -> int:
    """Return how many of the processes, with what exec_time() said of them *before*, have executed a program since."""
    return sum(exec_time(pid) != stack for pid, stack in before.items())


def test_it_begins_anew_when_its_code_has_changed_on_the_disk(start: Start) -> None:
    """An upgrade replaces files; here one of them only gets another time."""
    listening = start(f"more={COLD}")
    before = {pid: exec_time(pid) for pid in listening.warm()}
    path = Path(warm.__file__)
    was = path.stat()
    try:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1_000_000_000))
        wait_until(lambda: listening.ask("hold") == b"serving" and changed(before) == 1, "a new program")
        assert listening.ask("hold") == b"serving"
    finally:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert changed(before) == 1
    listening.wait_for_servers(0)


def test_sighup_loads_the_code_anew_and_servers_live_on(listening: Listening) -> None:
    with listening.connect("hold") as connection:
        assert connection.receive(100) == b"serving"
        (pid,) = listening.warm()
        before = exec_time(pid)
        listening.signal(signal.SIGHUP)
        wait_until(lambda: exec_time(pid) != before, "the warm process to begin anew")
        assert listening.ask("hold") == b"serving"
        connection.send(b"are you there?")
        assert connection.receive(100) == b"still"
    listening.wait_for_servers(0)


def test_code_that_is_not_good_costs_connections_to_it_and_nothing_else_until_it_is_mended(
    start: Start, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(f"{tmp_path}/notify")
        listening = start(f"more={FLAWED}", environment={"NOTIFY_SOCKET": f"{tmp_path}/notify"})
        assert manager.recv(1000).startswith(b"READY=1\n")
        flaw(listening.program.pid).touch()
        try:
            with listening.connect(FLAWED) as before:
                assert before.receive(100) == b"serving"
                listening.signal(signal.SIGHUP)
                assert [manager.recv(1000).partition(b"\n")[0] for _ in range(2)] == [b"RELOADING=1", b"READY=1"]
                assert listening.ask(FLAWED) == b""
                said = listening.wait_for(f"3 {FLAWED}: cannot start a server: its warm process has ended")
                assert "RuntimeError: cannot be imported" in said
                assert listening.ask("hold") == b"serving"
                before.send(b"are you there?")
                assert before.receive(100) == b"still"
        finally:
            flaw(listening.program.pid).unlink()
        assert listening.ask(FLAWED) == b"serving"
    listening.wait_for_servers(0)


def test_a_driver_that_does_not_survive_a_fork_is_imported_by_each_server(start: Start) -> None:
    listening = start(f"more={COLD}")
    assert [listening.ask(COLD) for _ in range(3)] == [b"same process"] * 3
    assert listening.ask("hold") == b"serving"


def test_a_start_that_fails_leaves_no_process(start: Start) -> None:
    with pytest.raises(AssertionError, match="no server can be started"):
        start(f"more={BROKEN}")
