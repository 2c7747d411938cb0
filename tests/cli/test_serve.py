"""``fuservice serve``: one connection, from inetd or from systemd, in the same cage; and the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuservice.cage.credentials import FIRST_UID
from fuservice.cli.main import main
from fuservice.linux.listener import Listener
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import mounted
from tests.support.processes import descendants, status
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("root", "fuse", "installed")

#: Executes argv[1:] with its standard input as descriptor 3, as systemd does for Accept=yes.
SYSTEMD = """
import os, sys
os.dup2(0, 3)
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="connection")
os.execv(sys.argv[1], sys.argv[1:])
"""
WAYS = {"inetd": [], "systemd": [sys.executable, "-c", SYSTEMD]}

Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Give a function that accepts a connection to the socket "memtree" and serves it, by one of the WAYS."""
    (tmp_path / "sockets").mkdir()
    listener = Listener(f"{tmp_path}/sockets/memtree", 0o600)
    started = []

    def accept(way: str, *words: str) -> subprocess.Popen[str]:
        with listener.accept() as connection, (tmp_path / "log").open("wb") as log:
            command = [*WAYS[way], os.fspath(PROGRAMS / "fuservice"), "serve", "memtree", *words]
            # inetd's standard output is the connection too.
            output = connection.fileno() if way == "inetd" else log
            started.append(subprocess.Popen(command, stdin=connection.fileno(), stdout=output, stderr=log, text=True))
        return started[-1]

    yield accept
    listener.close()
    for process in started:
        process.kill()
        process.wait()


@contextmanager
def helper(point: Path, sockets: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a helper that mounts memtree on *point*."""
    command: list[str | Path] = [PROGRAMS / "fuservicemount", point, "-t", "memtree", f"--socket-dir={sockets}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        yield process


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_becomes_a_mount_whose_server_is_in_the_cage(
    way: str, serve: Serve, mount_point: Path, tmp_path: Path
) -> None:
    with helper(mount_point, tmp_path / "sockets") as mounting:
        serving = serve(way)
        assert (mounting.wait(20), mounting.communicate()[1]) == (0, "")
    assert (mount_point / "hello").read_bytes().startswith(b"Hello")
    (server,) = descendants(serving.pid)
    lines = status(server)
    assert lines["Uid"].split() == [str(FIRST_UID + server)] * 4 and lines["NSpid"].split() == [str(server), "1"]
    assert (int(lines["CapBnd"], 16), lines["Seccomp"], lines["Name"]) == (0, "2", "memtree")
    kernel.umount2(os.fspath(mount_point))
    assert serving.wait(10) == 0
    assert (tmp_path / "log").read_text() == ""


def test_told_to_end_it_ends_with_its_server(serve: Serve, mount_point: Path, tmp_path: Path) -> None:
    with helper(mount_point, tmp_path / "sockets") as mounting:
        serving = serve("systemd")
        assert mounting.wait(20) == 0
    serving.send_signal(signal.SIGTERM)
    assert serving.wait(10) == 1
    said = (tmp_path / "log").read_text()
    assert f"] on {mount_point}: server ended with signal 9\n" in said
    assert said.endswith("fuservice: serve: the server of memtree did not end well\n")
    assert mounted(mount_point) is None


def test_killed_it_takes_its_server_along(serve: Serve, mount_point: Path, tmp_path: Path) -> None:
    with helper(mount_point, tmp_path / "sockets") as mounting:
        serving = serve("inetd")
        assert mounting.wait(20) == 0
    (server,) = descendants(serving.pid)
    serving.kill()
    serving.wait()
    wait_until(lambda: not is_running(server), "the server's end")
    assert mounted(mount_point) is not None


def is_running(pid: int) -> bool:
    """Say whether process *pid* runs."""
    try:
        return not status(pid)["State"].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_weaker_cage_is_said_and_recorded(serve: Serve, mount_point: Path, tmp_path: Path) -> None:
    with helper(mount_point, tmp_path / "sockets") as mounting:
        serving = serve("systemd", "--cage=-landlock,-seccomp")
        assert mounting.wait(20) == 0
    (server,) = descendants(serving.pid)
    assert status(server)["Seccomp"] == "0"
    assert "cage=-landlock,-seccomp\n" in Path(f"/run/fuservice/servers/{server}").read_text()
    kernel.umount2(os.fspath(mount_point))
    assert serving.wait(10) == 0
    assert (
        (tmp_path / "log")
        .read_text()
        .startswith("the cage of all servers is weaker than it could be: --cage=-landlock")
    )
    assert not Path(f"/run/fuservice/servers/{server}").exists()


def test_without_a_connection_it_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    keep, null = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(null, 0)
        assert main(["serve", "memtree"]) == 64
    finally:
        os.dup2(keep, 0)
        os.close(keep)
        os.close(null)
    assert capsys.readouterr().err == (
        "fuservice: serve: standard input: Socket operation on non-socket: expected a connection, from systemd or inetd "
        "(people start `fuservice listen')\n"
    )


def test_a_stream_is_no_connection(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command: list[str | Path] = [PROGRAMS / "fuservice", "serve", "memtree"]
        done = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 64 and "not an AF_UNIX SOCK_SEQPACKET socket: expected a connection" in done.stderr
