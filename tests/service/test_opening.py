"""The opening of a conversation, with everything that a helper can do wrong in it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuservice.errors import PeerGoneError, RemoteProtocolError
from fuservice.linux import memfd
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.proto import argv
from fuservice.proto import messages as m
from fuservice.service import Service
from fuservice.service import service as service_module
from tests.packets import golden, malformed
from tests.service.script import (
    WORDS,
    give_argv,
    give_device,
    heard,
    memory,
    open_conversation,
    say_hello,
    say_no_more,
    send_with,
)

pytestmark = pytest.mark.needs("fuse")

FILE = argv.encode(WORDS, 5)


def failure(*steps: Callable[[FdSeqPacket], object]) -> RemoteProtocolError:
    """Return how a service fails whose helper does *steps* and then nothing."""
    helper, other = FdSeqPacket.pair()
    with helper:
        for step in steps:
            step(helper)
        with pytest.raises(RemoteProtocolError) as error:
            Service(other)
    assert other.fileno() < 0
    return error.value


def file(name: bytes, fd: Fd) -> Callable[[FdSeqPacket], None]:
    """Return the step that gives *fd* as the file *name*, and closes it."""

    def step(helper: FdSeqPacket) -> None:
        with fd:
            helper.send(m.File(0, name).encode(), fd.fileno())

    return step


@pytest.mark.parametrize("content", [FILE, argv.encode(WORDS), FILE + b"more"], ids=["libfuse's", "compact", "longer"])
@pytest.mark.parametrize("make", [memory, lambda content: memfd.sealed("x", content)], ids=["unsealed", "sealed"])
def test_argv_files_of_both_kinds_are_taken(content: bytes, make: Callable[[bytes], Fd]) -> None:
    helper, other = FdSeqPacket.pair()
    with helper:
        say_hello(helper)
        file(b"argv", make(content))(helper)
        give_device(helper)
        with Service(other) as service:
            assert service.args == [os.fsdecode(word) for word in WORDS]


@pytest.mark.parametrize("bad", malformed.HELLOS, ids=lambda bad: bad.name)
def test_a_bad_hello_has_no_answer(bad: golden.Bad) -> None:
    helper, other = FdSeqPacket.pair()
    with helper:
        if bad.packet:
            helper.send(bad.packet)
        else:
            helper.shut_down()
        with pytest.raises(RemoteProtocolError) as error:
            Service(other)
        assert str(error.value) == bad.sentence
        assert heard(helper, 1) == [b""]


@pytest.mark.parametrize("bad", golden.ARGV_BAD, ids=lambda bad: bad.name)
def test_a_bad_argv_file_ends_it_with_a_goodbye(bad: golden.Bad) -> None:
    helper, other = FdSeqPacket.pair()
    with helper:
        say_hello(helper)
        file(b"argv", memory(bad.packet))(helper)
        give_device(helper)
        with pytest.raises(RemoteProtocolError) as error:
            Service(other)
        assert str(error.value) == bad.sentence
        assert heard(helper, 3) == [golden.HELLO_REPLY, golden.GOODBYE, b""]


def unreadable() -> Fd:
    """Return a memory file that is open for nothing."""
    with memory(FILE) as fd:
        return Fd(os.open(f"/proc/self/fd/{fd.fileno()}", os.O_PATH | os.O_CLOEXEC))


def huge() -> Fd:
    """Return a memory file of four gigabytes, of which nothing is there."""
    fd = memory(FILE)
    os.ftruncate(fd.fileno(), 1 << 32)
    return fd


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (huge, "service args file: expected a memfd of at most 1048576 bytes"),
        (lambda: Fd(os.open("/dev/zero", os.O_RDONLY)), "service args file: expected a memfd"),
        (lambda: Fd(os.open("/", os.O_RDONLY)), "service args file: expected a memfd"),
        (unreadable, "service args file: cannot be read: Bad file descriptor"),
    ],
    ids=["huge", "a device", "a directory", "unreadable"],
)
def test_an_argv_file_of_another_kind_is_refused(make: Callable[[], Fd], sentence: str) -> None:
    assert str(failure(say_hello, file(b"argv", make()), give_device)).startswith(sentence)


def test_another_device_is_no_fuse_device() -> None:
    null = Fd(os.open(os.devnull, os.O_RDWR))
    assert str(failure(say_hello, give_argv, file(b"fusedev", null))) == (
        "fusedev: expected the fuse device (character device 10:229), got something else"
    )


@pytest.mark.parametrize("bad", malformed.FILES, ids=lambda bad: bad.name)
def test_a_bad_file_packet_ends_it_and_leaves_no_descriptor(bad: malformed.BadFile) -> None:
    def step(helper: FdSeqPacket) -> None:
        if bad.packet:
            send_with(helper, bad.packet, [0] * bad.descriptors)
        else:
            say_no_more(helper)

    assert str(failure(say_hello, step)) == bad.sentence


def test_a_packet_with_too_many_descriptors_ends_it_and_leaves_none() -> None:
    error = failure(say_hello, lambda helper: send_with(helper, golden.FILE_ARGV, [0] * 20))
    assert str(error) == "the helper sent a packet of over 65536 bytes, or with over 4 descriptors"


def test_a_helper_without_the_file_says_why() -> None:
    refused = m.File(errno.EMFILE, b"fusedev").encode()
    assert str(failure(say_hello, give_argv, lambda helper: helper.send(refused))) == (
        "fusedev: the helper has none: Too many open files"
    )


@pytest.mark.parametrize("leave", [FdSeqPacket.close, say_no_more])
@pytest.mark.parametrize("step", range(3))
def test_a_helper_that_hangs_up_at_each_step_ends_it(step: int, leave: Callable[[FdSeqPacket], None]) -> None:
    failure(*(say_hello, give_argv, give_device)[:step], leave)


def test_a_helper_that_hangs_up_after_the_device_is_met_at_the_first_command() -> None:
    helper, other = FdSeqPacket.pair()
    with helper:
        open_conversation(helper)
        with Service(other) as service:
            helper.close()
            with pytest.raises(PeerGoneError):
                service.request_file("/img")


@pytest.mark.parametrize("step", range(3))
def test_a_silent_helper_is_given_up(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "HELLO_TIMEOUT", 0.05)
    monkeypatch.setattr(service_module, "STEP_TIMEOUT", 0.1)
    begun = time.monotonic()
    error = failure(*(say_hello, give_argv, give_device)[:step])
    assert isinstance(error, PeerGoneError)
    assert str(error).startswith("the helper said nothing for ")
    assert time.monotonic() - begun < 2


def test_a_helper_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(service_module, "STEP_TIMEOUT", 0.1)
    helper, other = FdSeqPacket.pair()
    with helper:
        open_conversation(helper)
        with Service(other) as service:
            service.request_file("/img")
            with pytest.raises(PeerGoneError, match="the helper said nothing"):
                service.receive_file("/img")
