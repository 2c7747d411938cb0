"""Whatever arrives, in whatever state: a message, a refusal, or the end of the conversation; and both ends agree."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from fuservice.errors import LocalProtocolError, RefusalError, RemoteProtocolError
from fuservice.proto import argv
from fuservice.proto import messages as m
from fuservice.proto.service_connection import ServiceConnection
from fuservice.proto.states import TRANSITIONS, State, step
from tests.packets.golden import ARGV_COMPACT, ARGV_TYPED, COMMANDS, VALID
from tests.packets.malformed import ENDS, FILES, HELLO_REPLIES, HELLOS, REFUSED, REPLIES
from tests.proto.test_connection import helper, service
from tests.proto.test_messages import anything

if TYPE_CHECKING:
    from fuservice.proto.connection import HelperConnection

KNOWN = [
    *(golden.packet for golden in VALID),
    *(packet for packet, _ in COMMANDS),
    *(bad.packet for bad in (*ENDS, *HELLOS, *HELLO_REPLIES)),
    *(bad.packet for bad in REFUSED),
    *(bad.packet for bad in FILES),
    *(bad.packet for bad in REPLIES),
]
MAGICS = sorted({packet[:4] for packet in KNOWN})


@st.composite
def mutated(draw: st.DrawFn, among: list[bytes]) -> bytes:
    """Give one of *among* with a few of its bytes changed, and cut or made longer."""
    packet = bytearray(draw(st.sampled_from(among)))
    for _ in range(draw(st.integers(0, 3))):
        if packet:
            packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(0, len(packet)))]) + draw(st.binary(max_size=8))


#: Any bytes; known packets, whole and damaged; a known magic with anything behind it.
packets = st.one_of(
    st.sampled_from([packet for packet in KNOWN if len(packet) < 1000]),
    mutated([packet for packet in KNOWN if len(packet) < 1000]),
    st.builds(bytes.__add__, st.sampled_from(MAGICS), st.binary(max_size=40)),
    st.binary(max_size=60),
)
errors = st.one_of(st.just(0), st.integers(1, 4095))
fds = st.integers(0, 4)


def hear(end: HelperConnection, packet: bytes, error: int) -> bool:
    """Let *end* read *packet* and answer with *error* if it may; say whether the conversation goes on."""
    try:
        command = end.receive(packet)
    except RefusalError as refusal:
        error = refusal.errno
        return end.answer(error)[4:8] == error.to_bytes(4, "big")
    except RemoteProtocolError:
        return False
    assert command.encode() == packet
    if isinstance(command, m.Goodbye):
        assert end.state is State.CLOSED
        return False
    end.answer(error)
    return True


@settings(deadline=None)
@given(st.sampled_from(list(TRANSITIONS)), st.lists(st.tuples(packets, errors), max_size=12))
def test_the_helper_survives_any_bytes_in_any_state(state: State, arriving: list[tuple[bytes, int]]) -> None:
    end = helper(state)
    before = end.state
    for packet, error in arriving:
        # What is out of order is refused, so answering it with success is no choice that the helper has.
        if not hear(end, packet, error):
            break
        assert end.state in (before, State.MOUNTED)


@settings(deadline=None)
@given(packets)
def test_any_answer_to_hello_is_accepted_or_ends_it(packet: bytes) -> None:
    end = helper(State.GREETED)
    try:
        end.receive_hello(packet)
    except RemoteProtocolError:
        assert end.state is State.GREETED
    else:
        assert end.state is State.AGREED


@settings(deadline=None)
@given(packets)
def test_any_hello_is_accepted_or_ends_it(packet: bytes) -> None:
    end = ServiceConnection()
    try:
        hello = end.receive_hello(packet)
    except RemoteProtocolError:
        assert end.state is State.CONNECTED
    else:
        assert hello.encode() == packet and end.state is State.GREETED


@settings(deadline=None)
@given(st.sampled_from([b"argv", b"fusedev"]), packets, fds)
def test_any_given_file_is_accepted_or_ends_it(name: bytes, packet: bytes, count: int) -> None:
    end = service(State.AGREED)
    try:
        given_file = end.receive_given(name, packet, count)
    except RemoteProtocolError:
        assert end.state is State.AGREED
    else:
        assert given_file.encode() == packet and count == (given_file.error == 0)


@settings(deadline=None)
@given(st.lists(anything(), max_size=4), st.lists(st.tuples(packets, fds), max_size=8))
def test_the_service_survives_any_answers(commands: list[m.Message], arriving: list[tuple[bytes, int]]) -> None:
    end = service()
    for command in commands:
        try:
            end.command(command)
        except LocalProtocolError:  # not ours to say here: the table knows
            assert step(end.state, type(command)) is None or type(command) in end.done
    for packet, count in arriving:
        try:
            answer = end.receive(packet, count)
        except RemoteProtocolError:
            continue  # a user would stop here; going on must not break it either
        assert answer.encode() == packet


@settings(deadline=None)
@given(st.one_of(mutated([ARGV_TYPED, ARGV_COMPACT]), st.binary(max_size=200).map(b"ARGS\0\0\0".__add__), st.binary()))
def test_any_argv_file_gives_words_or_ends_it(file: bytes) -> None:
    try:
        words = argv.decode(file)
    except RemoteProtocolError:
        pass
    else:
        assert 1 <= len(words) <= argv.MOST_WORDS
        assert all(b"\0" not in word and word + b"\0" in file for word in words)
        assert sum(map(len, words)) <= len(file)


# ---- two ends joined ----


def join(commands: list[m.Message], errors_of_helper: list[int], *, ahead: int) -> None:
    """Send *commands* where the service's table allows them, up to *ahead* before reading an answer."""
    here, there = service(), helper()
    wire: deque[bytes] = deque()
    verdicts = deque(errors_of_helper)

    def answer_one() -> None:
        try:
            command = there.receive(wire.popleft())
        except RefusalError as refusal:
            packet = there.answer(refusal.errno)
        else:
            if isinstance(command, m.Goodbye):
                return
            packet = there.answer(verdicts.popleft() if verdicts else 0)
        here.receive(packet, 1 if packet[:4] == b"FILE" and packet[4:8] == bytes(4) else 0)

    for command in commands:
        try:
            wire.append(here.command(command))
        except LocalProtocolError:
            continue
        while len(wire) > ahead:
            answer_one()
    while wire:
        answer_one()
    assert here.state is there.state
    assert here.done & set(m.COMMANDS) == there.done & set(m.COMMANDS)


kinds = st.one_of(
    st.builds(m.Open, st.sampled_from([b"/img", b"/"]), st.just(0)),
    st.builds(m.OpenBlockDevice, st.just(b"/dev/x"), st.just(0)),
    st.builds(m.SetType, st.sampled_from([0, 1, 2])),
    st.builds(m.SetSource, st.just(b"img")),
    st.builds(m.SetMountPoint, st.just(b"/mnt")),
    st.builds(m.SetOptions, st.just(b"max_read=1")),
    st.builds(m.SetMtab, st.just(b"-n")),
    st.builds(m.Mount, st.just(0)),
)


@settings(deadline=None)
@given(st.lists(kinds, max_size=20), st.lists(st.sampled_from([0, 0, 0, 13]), max_size=20), st.sampled_from([0, 1, 30]))
def test_two_ends_always_agree(commands: list[m.Message], verdicts: list[int], ahead: int) -> None:
    join(commands, verdicts, ahead=ahead)
    join([*commands, m.Goodbye(0)], verdicts, ahead=0)


@settings(deadline=None)
@given(st.lists(anything(), max_size=12))
def test_two_ends_agree_whatever_the_fields_hold(commands: list[m.Message]) -> None:
    join(commands, [], ahead=0)
