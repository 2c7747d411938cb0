"""Packets between our own processes: who sent them, what came along, and no call that blocks."""

from __future__ import annotations

import errno
import os

import pytest

from fuservice.linux.channel import Channel
from fuservice.linux.fds import Fd


def pair() -> tuple[Channel, Channel]:
    """Return both ends."""
    ours, theirs = Channel.pair()
    return ours, Channel(theirs)


def fill(channel: Channel) -> None:
    """Send for as long as there is room."""
    while True:
        channel.send(b"x" * 200)


def test_a_packet_brings_descriptors_and_the_senders_pid() -> None:
    ours, theirs = pair()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        theirs.send(b"hello", [writing])
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    packet = ours.receive(10)
    assert (packet.data, packet.pid, len(packet.fds)) == (b"hello", pid, 1)
    assert not os.get_inheritable(packet.fds[0].fileno())
    os.write(packet.fds[0].fileno(), b"through")
    assert os.read(reading, 10) == b"through"
    packet.close()
    os.close(reading)
    ours.close()
    theirs.close()


def test_no_call_blocks_and_the_end_is_empty() -> None:
    ours, theirs = pair()
    with pytest.raises(BlockingIOError):
        ours.receive(10)
    with pytest.raises(BlockingIOError):
        fill(ours)
    theirs.close()  # with packets unread: the other end gets ECONNRESET first
    assert ours.receive(10).data == b"" == ours.receive(10).data
    with pytest.raises(BrokenPipeError):
        ours.send(b"")
    ours.close()


def test_patience_waits_for_room() -> None:
    ours, theirs = pair()
    pid = os.fork()
    if pid == 0:
        for number in range(2_000):
            ours.send_patiently(b"%d" % number)
        os._exit(0)
    for number in range(2_000):
        theirs.wait()
        assert theirs.receive(10).data == b"%d" % number
    os.waitpid(pid, 0)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(("data", "descriptors"), [(b"x" * 11, 0), (b"x", 5)])
def test_what_does_not_fit_is_an_error_and_leaves_nothing_open(data: bytes, descriptors: int) -> None:
    ours, theirs = pair()
    theirs.send(data, [0] * descriptors)
    with pytest.raises(OSError, match="cut") as error:
        ours.receive(10)
    assert error.value.errno == errno.EMSGSIZE
    ours.close()
    theirs.close()


def test_what_is_no_socket_stays_the_callers() -> None:
    with Fd(os.open(os.devnull, os.O_RDONLY)) as null, pytest.raises(OSError, match="non-socket"):
        Channel(null)
