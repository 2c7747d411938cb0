"""Both ends of a conversation, packet by packet: what is accepted, refused, or ends it, and with which sentence."""

from __future__ import annotations

import errno

import pytest

from fuservice.errors import LocalProtocolError, PeerGoneError, RefusalError, RemoteProtocolError
from fuservice.proto import layouts
from fuservice.proto import messages as m
from fuservice.proto.connection import HelperConnection
from fuservice.proto.service_connection import ServiceConnection
from fuservice.proto.states import State
from tests.packets import golden, malformed


def helper(state: State = State.READY) -> HelperConnection:
    """Return a helper's end that has come as far as *state*."""
    end = HelperConnection("ext4")
    for wanted, step in (
        (State.GREETED, lambda: end.hello(3)),
        (State.AGREED, lambda: end.receive_hello(golden.HELLO_REPLY)),
        (State.ARGUED, lambda: end.give(b"argv")),
        (State.READY, lambda: end.give(b"fusedev")),
    ):
        if end.state is state:
            return end
        step()
        assert end.state is wanted
    if state is not State.READY:
        for packet in (golden.SET_SOURCE, golden.SET_MOUNT_POINT, golden.MOUNT):
            end.receive(packet)
            end.answer()
    if state is State.CLOSED:
        end.receive(golden.GOODBYE)
    assert end.state is state
    return end


def service(state: State = State.READY) -> ServiceConnection:
    """Return a service's end that has come as far as *state*."""
    end = ServiceConnection()
    for wanted, step in (
        (State.GREETED, lambda: end.receive_hello(golden.HELLO)),
        (State.AGREED, end.reply),
        (State.ARGUED, lambda: end.receive_given(b"argv", golden.FILE_ARGV, 1)),
        (State.READY, lambda: end.receive_given(b"fusedev", golden.FILE_FUSEDEV, 1)),
    ):
        if end.state is state:
            return end
        step()
        assert end.state is wanted
    if state is not State.READY:
        end.command(m.Mount(0))
        end.receive(golden.REPLY, 0)
    if state is State.CLOSED:
        end.command(m.Goodbye(0))
    assert end.state is state
    return end


# ---- the opening ----


def test_the_helper_opens_with_the_golden_packets() -> None:
    end = HelperConnection("ext4")
    assert end.hello(layouts.CAN_ALLOW_OTHER | layouts.CAN_FUSEBLK) == golden.HELLO
    end.receive_hello(golden.HELLO_REPLY)
    assert end.give(layouts.ARGV_NAME) == golden.FILE_ARGV
    assert end.give(layouts.FUSEDEV_NAME) == golden.FILE_FUSEDEV
    assert end.state is State.READY


def test_the_service_opens_with_the_golden_packets() -> None:
    end = ServiceConnection()
    hello = end.receive_hello(golden.HELLO)
    assert (hello.oldest, hello.newest, hello.flags) == (1, 1, 3)
    assert end.reply() == golden.HELLO_REPLY
    assert end.receive_given(b"argv", golden.FILE_ARGV, 1) == m.File(0, b"argv")
    assert end.receive_given(b"fusedev", golden.FILE_FUSEDEV, 1) == m.File(0, b"fusedev")


@pytest.mark.parametrize("bad", malformed.HELLO_REPLIES, ids=lambda bad: bad.name)
def test_a_bad_answer_to_hello_ends_the_conversation(bad: golden.Bad) -> None:
    end = helper(State.GREETED)
    with pytest.raises(RemoteProtocolError) as error:
        end.receive_hello(bad.packet)
    assert str(error.value) == bad.sentence


@pytest.mark.parametrize("bad", malformed.HELLOS, ids=lambda bad: bad.name)
def test_a_bad_hello_ends_the_conversation(bad: golden.Bad) -> None:
    end = ServiceConnection()
    with pytest.raises(RemoteProtocolError) as error:
        end.receive_hello(bad.packet)
    assert str(error.value) == bad.sentence


@pytest.mark.parametrize(("oldest", "newest"), [(0, 1), (1, 1), (1, 65535)])
def test_a_hello_whose_range_holds_our_version_is_accepted(oldest: int, newest: int) -> None:
    assert ServiceConnection().receive_hello(m.Hello(oldest, newest, 0).encode()).oldest == oldest


@pytest.mark.parametrize("bad", malformed.FILES, ids=lambda bad: bad.name)
def test_a_bad_file_ends_the_conversation(bad: malformed.BadFile) -> None:
    end = service(State.AGREED)
    with pytest.raises(RemoteProtocolError) as error:
        end.receive_given(b"argv", bad.packet, bad.descriptors)
    assert str(error.value) == bad.sentence
    assert end.state is State.AGREED


def test_a_helper_without_the_file_says_so_with_its_errno() -> None:
    end = service(State.AGREED)
    assert end.receive_given(b"argv", m.File(errno.ENOMEM, b"argv").encode(), 0).error == errno.ENOMEM


# ---- commands, on the helper's side ----


@pytest.mark.parametrize(("packet", "answer"), golden.COMMANDS, ids=lambda p: p[:4].decode() if p else "-")
def test_the_helper_reads_and_answers_every_command(packet: bytes, answer: bytes | None) -> None:
    end = helper()
    if packet[:4] == b"DOIT":
        for first in (golden.SET_SOURCE, golden.SET_MOUNT_POINT):
            end.receive(first)
            end.answer()
    command = end.receive(packet)
    assert command.encode() == packet
    if answer is None:
        assert end.state is State.CLOSED
        with pytest.raises(LocalProtocolError, match="there is no command to answer"):
            end.answer()
    else:
        assert end.answer() == answer


@pytest.mark.parametrize("bad", malformed.REFUSED, ids=lambda bad: bad.name)
def test_a_malformed_command_is_answered_and_the_conversation_goes_on(bad: malformed.Refused) -> None:
    end = helper()
    with pytest.raises(RefusalError) as refusal:
        end.receive(bad.packet)
    assert str(refusal.value) == bad.sentence
    assert end.answer(refusal.value.errno) == bad.answer
    assert end.state is State.READY and not end.done & set(m.COMMANDS)
    assert end.receive(golden.SET_SOURCE) == m.SetSource(b"img")


@pytest.mark.parametrize("bad", malformed.ENDS, ids=lambda bad: bad.name)
def test_what_is_no_command_ends_the_conversation(bad: golden.Bad) -> None:
    end = helper()
    with pytest.raises(RemoteProtocolError) as error:
        end.receive(bad.packet)
    assert str(error.value) == bad.sentence
    assert isinstance(error.value, PeerGoneError) == (bad.packet == b"")


def test_a_command_of_65536_bytes_is_read() -> None:
    source = helper().receive(b"NAME" + b"x" * 65_531 + b"\0")
    assert source == m.SetSource(b"x" * 65_531)


def test_a_refused_file_is_named_in_the_answer_once_it_could_be_read() -> None:
    end = helper(State.MOUNTED)
    with pytest.raises(RefusalError, match="open command is out of order: the mount is attached"):
        end.receive(golden.OPEN)
    assert end.answer(errno.EINVAL) == m.File(errno.EINVAL, b"/img").encode()


def test_every_command_wants_an_answer_before_the_next() -> None:
    end = helper()
    end.receive(golden.SET_SOURCE)
    with pytest.raises(LocalProtocolError, match="was not answered"):
        end.receive(golden.SET_TYPE)


def test_the_helper_reads_a_bounded_number_of_packets() -> None:
    end = helper()
    for _ in range(layouts.MOST_PACKETS):
        end.receive(golden.OPEN)
        end.answer(errno.EACCES)
    with pytest.raises(RemoteProtocolError, match=r"talks too much: 257 packets, 6425 bytes; at most 256 and 1048576"):
        end.receive(golden.OPEN)


def test_the_helper_reads_a_bounded_number_of_bytes() -> None:
    end, packet = helper(), b"NAME" + b"x" * 65_531 + b"\0"
    for _ in range(16):
        end.receive(packet)
        end.answer(errno.EINVAL)
    with pytest.raises(RemoteProtocolError, match="talks too much: 17 packets"):
        end.receive(packet)


@pytest.mark.parametrize("kind", [m.SetType, m.SetSource, m.SetMountPoint, m.SetOptions, m.SetMtab])
def test_what_succeeded_once_is_refused_the_second_time(kind: type[m.Message]) -> None:
    packet = next(packet for packet, _ in golden.COMMANDS if packet[:4] == kind.magic.to_bytes(4, "big"))
    end = helper()
    end.receive(packet)
    end.answer(errno.EPERM)
    end.receive(packet)  # it failed, so it may be tried again
    end.answer()
    with pytest.raises(RefusalError, match="respecified") as refusal:
        end.receive(packet)
    assert refusal.value.errno == errno.EINVAL
    assert end.answer(errno.EINVAL) == malformed.REFUSED_REPLY


def test_a_mount_needs_a_source_and_a_mount_point() -> None:
    end = helper()
    with pytest.raises(RefusalError, match="missing mount point parameter"):
        end.receive(golden.MOUNT)
    end.answer(errno.EINVAL)
    end.receive(golden.SET_MOUNT_POINT)
    end.answer()
    with pytest.raises(RefusalError, match="missing mount source parameter"):
        end.receive(golden.MOUNT)
    end.answer(errno.EINVAL)
    end.receive(golden.SET_SOURCE)
    end.answer()
    end.receive(golden.MOUNT)
    end.answer()
    assert end.state is State.MOUNTED


def test_a_second_mount_is_busy() -> None:
    end = helper(State.MOUNTED)
    with pytest.raises(RefusalError) as refusal:
        end.receive(golden.MOUNT)
    assert refusal.value.errno == errno.EBUSY
    assert str(refusal.value) == "mount: Device or resource busy"


def test_a_failed_mount_leaves_everything_as_it_was() -> None:
    end = helper()
    for packet in (golden.SET_SOURCE, golden.SET_MOUNT_POINT):
        end.receive(packet)
        end.answer()
    for _ in range(2):
        end.receive(golden.MOUNT)
        end.answer(errno.EBUSY)
        assert end.state is State.READY
    assert end.receive(golden.GOODBYE) == m.Goodbye(1)


# ---- answers, on the service's side ----


@pytest.mark.parametrize("bad", malformed.REPLIES, ids=lambda bad: bad.name)
def test_a_bad_reply_ends_the_conversation(bad: malformed.BadReply) -> None:
    end = service()
    end.command(m.SetType())
    with pytest.raises(RemoteProtocolError) as error:
        end.receive(bad.packet, bad.descriptors)
    assert str(error.value) == bad.sentence


def test_an_answer_to_nothing_ends_the_conversation() -> None:
    with pytest.raises(RemoteProtocolError, match="an answer of 8 bytes to no command"):
        service().receive(golden.REPLY, 0)


def test_answers_come_in_the_order_of_the_commands() -> None:
    end = service()
    end.command(m.Open(b"/img", 0))
    end.command(m.SetType())
    assert end.receive(golden.FILE_REFUSED, 0) == m.File(errno.EACCES, b"/img")
    assert end.receive(golden.REPLY, 0) == m.Reply(0)


def test_commands_may_be_sent_without_waiting_and_goodbye_too() -> None:
    end = service()
    for command in (m.SetSource(b"img"), m.SetMountPoint(b"/mnt"), m.Mount(0), m.Goodbye(0)):
        end.command(command)
    for _ in range(3):
        end.receive(golden.REPLY, 0)
    assert end.state is State.CLOSED
    assert {m.SetSource, m.SetMountPoint, m.Mount} <= end.done


def test_a_helper_that_carries_out_what_is_out_of_order_ends_the_conversation() -> None:
    end = service()
    end.command(m.Mount(0))
    end.command(m.Open(b"/img", 0))
    end.receive(golden.REPLY, 0)
    with pytest.raises(RemoteProtocolError, match="said yes to open command out of order: the mount is attached"):
        end.receive(m.File(0, b"/img").encode(), 1)


@pytest.mark.parametrize("state", [State.CONNECTED, State.AGREED, State.MOUNTED, State.CLOSED])
def test_a_command_of_ours_out_of_order_is_our_own_bug(state: State) -> None:
    with pytest.raises(LocalProtocolError, match=f"SetType in state {state.name}"):
        service(state).command(m.SetType())


def test_a_command_of_ours_that_cannot_be_encoded_was_never_said() -> None:
    end = service()
    with pytest.raises(ValueError, match="not empty"):
        end.command(m.SetSource(b""))
    end.command(m.SetType())
    assert end.receive(golden.REPLY, 0) == m.Reply(0)


def test_steps_of_the_opening_out_of_order_are_our_own_bug() -> None:
    end = HelperConnection("ext4")
    with pytest.raises(LocalProtocolError):
        end.give(b"argv")
    end.hello(0)
    with pytest.raises(LocalProtocolError):
        end.hello(0)
