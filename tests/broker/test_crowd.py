"""Callers who come in numbers, say nothing, go in the middle, or make the kernel wait for them: nobody else is the worse for it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.broker import daemon, wire
from fuservice.drivers.memtree import Memtree
from fuservice.linux.fdsockets import FdSeqPacket
from tests.broker.yard import ALICE, BOB, CAROL, SAFE, Yard
from tests.fuse.kernelmount import served
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.processes import Program, status
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.needs("root", "fuse", "installed"), pytest.mark.timeout(120)]

GOOD = wire.Mount("src", "toy", SAFE, []).encode()
FUSE_DEV_IOC_SYNC_INIT = 0xE503  # Linux 6.18
CONNECTIONS = 10_000


def works(broker: Yard, name: str = "bob", uid: int = BOB) -> None:
    """Check that another user is served."""
    point = broker.make(name, owner=uid)
    answer = broker.mount(broker.pin(point), uid=uid)
    assert answer.error == 0, answer.sentence
    kernel.umount2(os.fspath(point), kernel.MNT_DETACH)


def is_closed(connection: FdSeqPacket) -> bool:
    """Say whether the broker has hung up."""
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    return bool(poll.poll(0))


def test_whoever_hangs_up_at_once_costs_no_process(broker: Yard) -> None:
    before = Path("/proc/loadavg").read_text().split()[4]
    for _ in range(CONNECTIONS):
        broker.connect().close()
    works(broker)
    forks = int(Path("/proc/loadavg").read_text().split()[4]) - int(before)
    print(f"{CONNECTIONS} connections; meanwhile {forks} processes were made on the whole machine")
    assert not broker.program.ended()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process have as many connections as it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_ten_thousand_silent_connections_of_one_user(broker: Yard) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(CONNECTIONS, hard - 200)
    connections = [broker.connect() for _ in range(wanted)]
    works(broker)
    wait_until(
        lambda: sum(not is_closed(one) for one in connections) <= daemon.PER_UID, "few that were not turned away", 30
    )
    for connection in connections:
        connection.close()
    print(f"{wanted} connections, {daemon.PER_UID} of them kept")
    told = [
        line for line in broker.program.said().splitlines() if f"refused uid {ALICE}, which has 16 connections" in line
    ]
    assert 1 <= len(told) <= 20
    wait_until(lambda: broker.open_in_broker() == broker.descriptors, "the end of all connections", 30)
    works(broker, "alice", ALICE)


def test_whoever_says_nothing_is_let_go_and_whoever_never_hangs_up(broker: Yard) -> None:
    """The latter leaves no mount: the broker waits for him to have read that it is there, and not for ever."""
    silent = [broker.connect() for _ in range(daemon.PER_UID)]
    assert not any(map(is_closed, silent))
    with broker.connect(CAROL) as connection:
        connection.send_with_fds(GOOD, [broker.device(), broker.pin(broker.make(owner=CAROL))])
        answer = wire.answer(connection.receive(wire.LARGEST))
        assert isinstance(answer, wire.Answer) and answer.error == 0 and broker.here()
        works(broker)
        wait_until(lambda: all(map(is_closed, silent)), "the end of the silent", daemon.SILENCE + 10)
        wait_until(lambda: not broker.here(), "the end of the mount", 20)
    for one in silent:
        one.close()
    works(broker, "alice", ALICE)


def test_requests_without_end_do_not_keep_another_user_waiting(broker: Yard) -> None:
    bad = GOOD[:-1]

    def flood() -> list[FdSeqPacket]:
        made = []
        for _ in range(daemon.PER_UID):
            made.append(broker.connect())
            with contextlib.suppress(BrokenPipeError):  # one too many
                made[-1].send(bad)
        return made

    waiting = flood()
    for round_ in range(10):
        works(broker, f"bob{round_}")
        for connection in [one for one in waiting if is_closed(one)]:
            connection.close()
            waiting.remove(connection)
        waiting += flood()
    for connection in waiting:
        connection.close()


# ---- peers that go ----


def test_a_peer_that_has_gone_before_its_request_is_read(broker: Yard) -> None:
    point = broker.pin(broker.make())
    for _ in range(50):
        with broker.connect() as connection, contextlib.suppress(BrokenPipeError):  # one too many at once
            connection.send_with_fds(GOOD, [broker.device(), point])
    works(broker)
    wait_until(lambda: not broker.servers(), "the end of whatever was begun")
    assert not broker.here()


def test_a_peer_that_goes_before_it_is_told_leaves_no_mount(broker: Yard) -> None:
    uid = CAROL + 1  # of whom nothing was logged yet, so that this is
    point = broker.make(owner=uid)
    connection = broker.connect(uid)
    connection.send_with_fds(GOOD, [broker.device(), broker.pin(point)])
    wait_until(lambda: bool(broker.here()), "the mount")
    connection.close()  # with the answer unread, or before it was sent
    wait_until(lambda: not broker.here(), "the end of the mount")
    lines = [
        f"uid {uid}, pid {os.getpid()}: {what}" for what in ("ended before it was told of its mount", "cannot be told")
    ]
    wait_until(lambda: any(line in broker.program.said() for line in lines), "the line")


@pytest.mark.needs("userns")
def test_whoever_has_a_user_namespace_is_not_thousands_of_users(broker: Yard) -> None:
    """Each would have connections of his own: subordinate ids are there by default."""
    code = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.connect(sys.argv[1]); print(s.recv(999)[16:])"
    for number in (ALICE, BOB):
        words = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", "unshare", "-Ur"]
        done = subprocess.run(
            [*words, "/usr/bin/python3", "-c", code, broker.socket], capture_output=True, text=True, check=True
        )
        assert done.stdout == "b'you are in another user namespace than the broker'\n"
    works(broker)


def test_an_exception_that_nobody_foresaw_ends_one_connection(tmp_path: Path) -> None:
    """In the process that listens: here the first look at a connection, and the first at a caller, fail."""
    script = f"""
from fuservice.broker import daemon
from fuservice.cli.broker import main
def once(function):
    left = [1]
    def failing(*words):
        if left:
            left.pop()
            raise RuntimeError("unforeseen")
        return function(*words)
    return failing
daemon.peers.has_hung_up = once(daemon.peers.has_hung_up)
from fuservice.linux.fdsockets import FdSeqPacket
FdSeqPacket.peer = once(FdSeqPacket.peer)
raise SystemExit(main(["--socket", {str(tmp_path / "run/socket")!r}]))
"""
    program = Program([PROGRAMS / "python", "-c", script], tmp_path / "log")
    wait_until(lambda: "listening on" in program.said() or program.ended(), "a broker that listens", 20)
    sentences = []
    for _ in range(3):
        with FdSeqPacket.connect(str(tmp_path / "run/socket"), 10) as connection, contextlib.suppress(OSError):
            connection.deadline = time.monotonic() + 10
            connection.send(b"hello")
            sentences.append(connection.receive(wire.LARGEST)[16:])
    assert sentences[-1].startswith(b"malformed") and not any(sentences[:-1])
    assert program.said().count("RuntimeError: unforeseen") == 2
    assert program.stop() == 0


def test_a_peer_that_goes_instead_of_a_proof(broker: Yard) -> None:
    connection = broker.connect()
    connection.send_with_fds(GOOD, [broker.device(), broker.pin(broker.make(owner=0))])
    assert isinstance(wire.answer(connection.receive(wire.LARGEST)), wire.Challenge)
    connection.close()
    works(broker)


def test_whoever_connected_must_live(broker: Yard) -> None:
    """Its number may be another's by now; it is never looked at."""
    ours, theirs = FdSeqPacket.pair()
    pid = os.fork()
    if pid == 0:
        connection = broker.connect()
        theirs.send(b"x", connection.fileno())
        os._exit(0)
    theirs.close()
    _, (fd,) = ours.receive_with_fds(1)
    os.waitpid(pid, 0)
    ours.close()
    with FdSeqPacket(fd) as connection:
        connection.deadline = time.monotonic() + 10
        # By now the broker may have answered and hung up: then sending fails, and reading first says so, and then what it said.
        with contextlib.suppress(BrokenPipeError):
            connection.send_with_fds(GOOD, [broker.device(), broker.pin(broker.make())])
        try:
            answer = wire.answer(connection.receive(wire.LARGEST))
        except ConnectionResetError:
            answer = wire.answer(connection.receive(wire.LARGEST))
    assert isinstance(answer, wire.Answer)
    assert (answer.error, answer.sentence) == (errno.ESRCH, "the process that connected has ended")
    assert not broker.here()


# ---- peers for whom the kernel waits ----


def waits_for_the_device(pid: int) -> bool:
    """Say whether a process sleeps in a poll(2) that was not to wait: the kernel lets a look at such a device wait, too."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()  # proc_pid_syscall(5): number, arguments
    return os.uname().machine != "x86_64" or (call[0], call[3:4]) == ("7", ["0x0"])


def test_a_mount_that_waits_for_its_server_holds_up_nobody_else(broker: Yard) -> None:
    device, point = broker.device(), broker.make()
    try:
        fcntl.ioctl(device, FUSE_DEV_IOC_SYNC_INIT, 0)
    except OSError:
        pytest.skip("this kernel's mounts do not wait for the server (Linux 6.18)")
    connection = broker.connect()
    connection.send_with_fds(GOOD, [device, broker.pin(point)])
    wait_until(broker.servers, "a process that waits")
    (pid,) = broker.servers()
    wait_until(lambda: waits_for_the_device(pid), "the call that waits")
    second = broker.connect()
    second.send_with_fds(GOOD, [broker.device(), broker.pin(point)])
    works(broker)
    assert broker.servers() != [] and not is_closed(second)  # one at a time for each user
    os.kill(pid, signal.SIGKILL)  # what the broker does after PATIENCE seconds
    assert connection.receive(wire.LARGEST) == b""
    answer = wire.answer(second.receive(wire.LARGEST))
    assert isinstance(answer, wire.Answer) and answer.error == 0
    for one in (connection, second):
        one.close()
    wait_until(
        lambda: f"uid {ALICE}: the process that served a request of theirs ended by signal 9" in broker.program.said(),
        "the line",
    )


@pytest.mark.parametrize("what", ["the close", "the look"])
def test_files_of_a_server_that_does_not_answer_hold_up_nobody_else(broker: Yard, what: str) -> None:
    """The close of such a file waits for the server, and not even SIGKILL ends that: only the caller's own process hangs."""
    with served(broker.make("stopped"), Memtree({b"file": b"content"}), options=",allow_other") as mount:
        opened = os.open(mount.point / "file", os.O_RDONLY | os.O_CLOEXEC)
        fds = [broker.device(), opened]
        if what == "the close":
            fds = [broker.device(), broker.pin(broker.make("p")), opened]
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            connection = broker.connect()
            connection.send_with_fds(GOOD, fds)
            if what == "the close":
                answer = wire.answer(connection.receive(wire.LARGEST))
                assert isinstance(answer, wire.Answer) and answer.error == errno.EPROTO
            for name in ("one", "two", "three"):
                works(broker, name)
            wait_until(lambda: len(broker.servers()) == 1, "one who waits")
            print(status(broker.servers()[0])["State"])
        finally:
            os.kill(mount.pid, signal.SIGCONT)
            os.close(opened)
        connection.close()
        wait_until(lambda: not broker.servers(), "the end of the one who waited", daemon.PATIENCE + 10)


def test_a_mount_point_on_a_mount_whose_server_is_dead(broker: Yard) -> None:
    with served(broker.make("dead"), Memtree({b"file": b"content"}), options=",allow_other") as mount:
        root, file = broker.pin(mount.point), broker.pin(mount.point / "file")
        os.kill(mount.pid, signal.SIGKILL)
        mount.wait()
        for place in (root, file):
            answer = broker.mount(place)
            assert answer.error == errno.ENOTCONN and "the mount point" in answer.sentence
        assert broker.mount(broker.pin(broker.make()), file).error == errno.ENODEV
