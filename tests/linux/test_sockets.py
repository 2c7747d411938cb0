"""Packets and descriptors over a real socket pair: owned, close-on-exec, counted, bounded in time and size."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.linux import sockets
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket, TruncatedPacketError
from fuservice.linux.listener import Listener
from tests.service.script import send_with
from tests.support.leaks import open_descriptors


@pytest.fixture
def ends() -> Iterator[tuple[FdSeqPacket, FdSeqPacket]]:
    """Give both ends of a connection."""
    one, other = FdSeqPacket.pair()
    with one, other:
        yield one, other


Ends = tuple[FdSeqPacket, FdSeqPacket]


def test_packets_stay_whole_and_the_end_is_empty(ends: Ends) -> None:
    one, other = ends
    one.send(b"first")
    one.send(b"second")
    one.close()
    assert [other.receive(100) for _ in range(3)] == [b"first", b"second", b""]
    with pytest.raises(BrokenPipeError):
        other.send(b"late")


def test_a_descriptor_arrives_close_on_exec_and_owned(ends: Ends) -> None:
    one, other = ends
    with Fd(os.open(os.devnull, os.O_RDONLY)) as null:
        one.send(b"here", null.fileno())
        data, fds = other.receive_with_fds(100)
        assert data == b"here" and len(fds) == 1
        with fds[0] as fd:
            assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
            assert os.path.sameopenfile(fd.fileno(), null.fileno())


def test_every_descriptor_is_counted(ends: Ends) -> None:
    one, other = ends
    send_with(one, b"x", [0, 1, 2])
    _, fds = other.receive_with_fds(10)
    assert len(fds) == 3
    for fd in fds:
        fd.close()


def test_too_many_descriptors_leave_none(ends: Ends) -> None:
    one, other = ends
    before = open_descriptors()
    send_with(one, b"x", [0] * 10)
    with pytest.raises(TruncatedPacketError, match="over 4 descriptors"):
        other.receive_with_fds(10)
    assert open_descriptors() == before


def test_too_long_a_packet_leaves_no_descriptor(ends: Ends) -> None:
    one, other = ends
    before = open_descriptors()
    one.send(b"x" * 12, 0)
    with pytest.raises(TruncatedPacketError, match="over 10 bytes"):
        other.receive_with_fds(10)
    assert open_descriptors() == before


def test_without_room_for_descriptors_they_are_dropped(ends: Ends) -> None:
    one, other = ends
    before = open_descriptors()
    one.send(b"packet", 0)
    assert other.receive(100) == b"packet"
    assert open_descriptors() == before


def test_a_longer_packet_shows_by_its_length(ends: Ends) -> None:
    one, other = ends
    one.send(b"x" * 100)
    one.send(b"next")
    assert len(other.receive(10)) == 11
    assert other.receive(10) == b"next"


def test_a_deadline_bounds_a_silent_peer(ends: Ends) -> None:
    one, _ = ends
    one.deadline = time.monotonic() + 0.05
    for receive in (one.receive, one.receive_with_fds):
        with pytest.raises(TimeoutError):
            receive(10)
    assert time.monotonic() - one.deadline < 1


def test_a_deadline_bounds_a_peer_that_reads_nothing(ends: Ends) -> None:
    one, _ = ends
    one.deadline = time.monotonic() + 0.05

    def flood() -> None:
        for _ in range(10_000):
            one.send(b"x" * 60_000)

    with pytest.raises(TimeoutError):
        flood()


def test_what_waits_already_is_read_after_the_deadline(ends: Ends) -> None:
    one, other = ends
    other.send(b"in time")
    one.deadline = time.monotonic() - 10
    assert one.receive(10) == b"in time"
    one.deadline = None
    other.send(b"without")
    assert one.receive(10) == b"without"


def test_shutting_down_ends_both_directions_and_may_be_repeated(ends: Ends) -> None:
    one, other = ends
    one.shut_down()
    assert other.receive(10) == b""
    other.close()
    one.shut_down()
    one.close()
    one.close()


def test_the_peer_is_known(ends: Ends) -> None:
    peer = ends[0].peer()
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


def test_refused_descriptors_fail_at_the_sender(ends: Ends) -> None:
    one, other = ends
    assert sockets.SO_PASSRIGHTS == 83
    one.refuse_descriptors()
    if [int(part) for part in os.uname().release.split(".")[:2]] < [6, 16]:
        other.send(b"x", 0)  # SO_PASSRIGHTS is not there yet
        return
    with pytest.raises(PermissionError) as error:
        other.send(b"x", 0)
    assert error.value.errno == errno.EPERM
    other.send(b"without")
    assert one.receive(10) == b"without"


@pytest.mark.parametrize(
    ("family", "kind"),
    [(socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_STREAM)],
)
def test_another_kind_of_socket_is_refused_and_stays_the_callers(family: int, kind: int) -> None:
    with socket.socket(family, kind) as raw, Fd(os.dup(raw.fileno())) as fd:
        with pytest.raises(OSError, match="not an AF_UNIX SOCK_SEQPACKET socket") as error:
            FdSeqPacket(fd)
        assert error.value.errno == errno.EPROTOTYPE
        assert not fd.closed


def test_a_socket_that_is_not_connected_and_a_file_are_refused() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw, Fd(os.dup(raw.fileno())) as fd:
        with pytest.raises(OSError, match="not connected"):
            FdSeqPacket(fd)
        assert not fd.closed
    with Fd(os.open(os.devnull, os.O_RDONLY)) as null:
        with pytest.raises(OSError, match="non-socket"):
            FdSeqPacket(null)
        assert not null.closed


# ---- listening and connecting ----


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """Give a listening socket with room for one connection that waits."""
    listening = Listener(f"{tmp_path}/socket", 0o620, backlog=1)
    yield listening
    listening.close()


def test_a_listener_has_its_mode_and_accepts(listener: Listener) -> None:
    assert stat.S_IMODE(Path(listener.path).stat().st_mode) == 0o620
    with FdSeqPacket.connect(listener.path, 1.0) as client, listener.accept() as server:
        for end in (client, server):
            assert fcntl.fcntl(end.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        client.send(b"hello")
        assert server.receive(10) == b"hello"
        server.deadline = time.monotonic() + 0.02
        with pytest.raises(TimeoutError):
            server.receive(10)


def test_a_client_that_went_away_is_accepted_and_gone(listener: Listener) -> None:
    FdSeqPacket.connect(listener.path, 1.0).close()
    with listener.accept() as server:
        assert server.receive(10) == b""


def test_a_full_queue_is_waited_for(listener: Listener) -> None:
    waiting = [FdSeqPacket.connect(listener.path, 1.0) for _ in range(2)]
    with pytest.raises(TimeoutError) as error:
        FdSeqPacket.connect(listener.path, 0.05)
    assert error.value.filename == listener.path
    later = threading.Timer(0.05, lambda: listener.accept().close())
    later.start()
    waiting.append(FdSeqPacket.connect(listener.path, 5.0))
    later.join()
    for client in waiting:
        client.close()


def test_a_connected_socket_waits_as_long_as_it_is_told(listener: Listener) -> None:
    """The time that connecting may take is not a time limit of what follows."""
    with FdSeqPacket.connect(listener.path, 0.02) as client, listener.accept() as server:
        later = threading.Timer(0.1, lambda: server.send(b"late"))
        later.start()
        assert client.receive(10) == b"late"
        later.join()


def test_failures_to_connect_and_to_listen_name_the_path(tmp_path: Path) -> None:
    missing, long = f"{tmp_path}/missing", f"{tmp_path}/{'x' * 110}"
    with pytest.raises(FileNotFoundError) as nobody:
        FdSeqPacket.connect(missing, 1.0)
    assert nobody.value.filename == missing
    for attempt in (lambda: FdSeqPacket.connect(long, 1.0), lambda: Listener(long, 0o600)):
        with pytest.raises(OSError, match="File name too long") as error:
            attempt()
        assert (error.value.errno, error.value.filename) == (errno.ENAMETOOLONG, long)
    with pytest.raises(FileNotFoundError) as nowhere:
        Listener(f"{missing}/socket", 0o600)
    assert nowhere.value.filename == f"{missing}/socket"
    stale = Listener(f"{tmp_path}/stale", 0o600)
    stale.close()
    with pytest.raises(ConnectionRefusedError):
        FdSeqPacket.connect(stale.path, 1.0)
    with pytest.raises(OSError, match="already in use"):
        Listener(stale.path, 0o600)
