"""The draft dialect: other bytes for the same messages, told by the length of the hello."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuservice.errors import LocalProtocolError, RefusalError, RemoteProtocolError
from fuservice.proto import messages as m
from fuservice.proto.connection import HelperConnection
from fuservice.proto.dialects import CURRENT, DRAFT, DraftHelloReply
from fuservice.proto.service_connection import ServiceConnection, of_hello
from fuservice.proto.states import TRANSITIONS, State
from tests.packets import draft, golden


@pytest.mark.parametrize("packet", draft.VALID, ids=lambda packet: packet.name)
def test_a_message_of_the_draft_is_its_golden_packet(packet: golden.Golden) -> None:
    assert packet.message.encode() == packet.packet
    assert type(packet.message).decode(packet.packet) == packet.message


def test_the_length_of_the_hello_tells_the_dialects_apart() -> None:
    assert of_hello(golden.HELLO) is CURRENT
    assert of_hello(draft.HELLO) is DRAFT
    assert DraftHelloReply.decode(draft.HELLO_REPLY_UNSET).version == 1


def test_every_message_of_both_dialects_plays_a_role_in_the_table() -> None:
    placed = {kind for row in TRANSITIONS.values() for kind in row}
    for dialect in (CURRENT, DRAFT):
        roles = {kind.role for kind in dialect.by_magic.values()}
        assert {dialect.hello.role, dialect.hello_reply.role} | roles <= placed
    assert {kind.role for kind in DRAFT.by_magic.values()} == set(m.COMMANDS) - {m.OpenBlockDevice, m.SetMtab}


def test_a_service_answers_in_the_dialect_it_was_greeted_in() -> None:
    end = ServiceConnection()
    assert end.receive_hello(draft.HELLO).flags == 0
    assert end.reply() == draft.HELLO_REPLY
    end.receive_given(b"argv", golden.FILE_ARGV, 1)
    end.receive_given(b"fusedev", golden.FILE_FUSEDEV, 1)
    assert end.command(m.Open(b"/img", 2)) == draft.OPEN
    assert end.command(end.set_type("hello", fuseblk=False)) == draft.SET_TYPE
    assert end.command(m.SetMountPoint(b"/mnt", 0o040000)) == draft.SET_MOUNT_POINT
    with pytest.raises(LocalProtocolError, match="the draft dialect has no such command"):
        end.command(m.SetMtab(b"-n"))


def test_a_helper_speaks_the_draft_when_told_to() -> None:
    end = HelperConnection("hello", DRAFT)
    assert end.hello(3) == draft.HELLO
    end.receive_hello(draft.HELLO_REPLY_UNSET)
    assert end.give(b"argv") == golden.FILE_ARGV
    end.give(b"fusedev")
    assert end.receive(draft.SET_SOURCE_WITHOUT_NUL).encode() == golden.SET_SOURCE
    end.answer()
    assert end.receive(draft.SET_MOUNT_POINT).encode() == draft.SET_MOUNT_POINT
    end.answer()
    with pytest.raises(RefusalError, match="respecified"):
        end.receive(draft.SET_MOUNT_POINT)
    assert end.answer(errno.EINVAL) == m.Reply(errno.EINVAL).encode()
    end.receive(golden.MOUNT)
    end.answer()
    assert end.state is State.MOUNTED


MAGICS = [kind.magic.to_bytes(4, "big") for kind in DRAFT.by_magic.values()]


@settings(deadline=None)
@given(st.lists(st.builds(bytes.__add__, st.sampled_from(MAGICS), st.binary(max_size=30)), max_size=6))
def test_the_drafts_loose_strings_still_give_a_message_a_refusal_or_the_end(packets: list[bytes]) -> None:
    end = HelperConnection("hello", DRAFT)
    end.hello(0)
    end.receive_hello(draft.HELLO_REPLY)
    end.give(b"argv")
    end.give(b"fusedev")
    for packet in packets:
        try:
            command = end.receive(packet)
        except RefusalError as refusal:
            end.answer(refusal.errno)
            continue
        except RemoteProtocolError:
            return
        assert packet.startswith(command.encode().removesuffix(b"\0"))
        if isinstance(command, m.Goodbye):
            return
        end.answer()


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_any_hello_of_the_drafts_length_is_accepted_or_ends_it(packet: bytes) -> None:
    end = ServiceConnection()
    try:
        hello = end.receive_hello(b"SAFT" + packet)
    except RemoteProtocolError:
        return
    assert hello.encode() == b"SAFT" + packet
