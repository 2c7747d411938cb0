"""A mount helper that says what a test tells it to say, all at once: packets wait in the socket until they are read."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.proto import argv
from fuservice.proto import messages as m
from fuservice.proto.dialects import CURRENT
from fuservice.service import Service
from tests.packets import golden

WORDS = (b"tiny", b"/img", b"/mnt")


def memory(content: bytes) -> Fd:
    """Return a memory file as libfuse's helper makes it: not sealed."""
    fd = Fd(os.memfd_create(CURRENT.memfd_name))
    os.pwrite(fd.fileno(), content, 0)
    return fd


def fuse_device() -> Fd:
    """Return an open fuse device."""
    return Fd(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))


def say_hello(helper: FdSeqPacket, flags: int = 3) -> None:
    """Send SAFT."""
    helper.send(m.Hello(1, 1, flags).encode())


def give_argv(helper: FdSeqPacket, words: Sequence[bytes] = WORDS) -> None:
    """Send FILE argv."""
    with memory(argv.encode(words, 5)) as file:
        helper.send(golden.FILE_ARGV, file.fileno())


def give_device(helper: FdSeqPacket) -> None:
    """Send FILE fusedev."""
    with fuse_device() as device:
        helper.send(golden.FILE_FUSEDEV, device.fileno())


def open_conversation(helper: FdSeqPacket, words: Sequence[bytes] = WORDS, flags: int = 3) -> None:
    """Send all that comes before the first command."""
    say_hello(helper, flags)
    give_argv(helper, words)
    give_device(helper)


def send_with(end: FdSeqPacket, packet: bytes, fds: Sequence[int]) -> None:
    """Send *packet* with copies of all *fds*."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    with socket.socket(fileno=os.dup(end.fileno())) as raw:
        raw.sendmsg([packet], rights)


def say_no_more(end: FdSeqPacket) -> None:
    """Let the peer read the end of the connection, and still be able to write."""
    with socket.socket(fileno=os.dup(end.fileno())) as raw:
        raw.shutdown(socket.SHUT_WR)


def heard(helper: FdSeqPacket, count: int) -> list[bytes]:
    """Return the next *count* packets that the service sent."""
    return [helper.receive(65_536) for _ in range(count)]


@contextmanager
def conversation(words: Sequence[bytes] = WORDS, flags: int = 3) -> Iterator[tuple[FdSeqPacket, Service]]:
    """Give both ends after the opening: the helper's socket, and the service under test."""
    helper, other = FdSeqPacket.pair()
    with helper:
        open_conversation(helper, words, flags)
        with Service(other) as service:
            assert heard(helper, 1) == [golden.HELLO_REPLY]
            yield helper, service
