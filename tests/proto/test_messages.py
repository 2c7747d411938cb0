"""Every message is its golden packet, both ways, and every malformed one is refused with its sentence."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuservice.errors import RefusalError
from fuservice.proto import layouts
from fuservice.proto import messages as m
from tests.packets.golden import COMMANDS, VALID, Golden
from tests.packets.malformed import REFUSED, Refused

KINDS = {kind.magic: kind for kind in (*m.HELPER_SENDS, *m.SERVICE_SENDS)}

be16, be32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)
text = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw)


def anything() -> st.SearchStrategy[m.Message]:
    """Give messages of every kind, with every value that their fields can hold."""
    opens = {"path": text, "flags": be32, "mode": be32, "request": be32, "block_size": be32}
    return st.one_of(
        st.builds(m.Hello, be16, be16, be32),
        st.builds(m.HelloReply, be16),
        st.builds(m.File, be32, text),
        st.builds(m.Open, **opens),
        st.builds(m.OpenBlockDevice, **opens),
        st.builds(m.SetType, be32),
        st.builds(m.SetSource, text),
        st.builds(m.SetMountPoint, text, be16),
        st.builds(m.SetOptions, text),
        st.builds(m.SetMtab, text),
        st.builds(m.Mount, be32),
        st.builds(m.Goodbye, be32),
        st.builds(m.Reply, be32),
    )


@pytest.mark.parametrize("golden", VALID, ids=lambda golden: golden.name)
def test_a_message_is_its_golden_packet(golden: Golden) -> None:
    assert golden.message.encode() == golden.packet
    decoded = type(golden.message).decode(golden.packet)
    decoded.check()
    assert decoded == golden.message
    assert hash(decoded) == hash(golden.message)


def test_every_kind_has_a_golden_packet() -> None:
    assert {type(golden.message) for golden in VALID} == set(KINDS.values())
    assert {packet[:4] for packet, _ in COMMANDS} == {kind.magic.to_bytes(4, "big") for kind in m.COMMANDS}


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: bad.name)
def test_a_malformed_message_is_refused_with_its_sentence(bad: Refused) -> None:
    kind = KINDS[int.from_bytes(bad.packet[:4], "big")]
    with pytest.raises(RefusalError) as refusal:
        kind.decode(bad.packet).check()
    assert refusal.value.errno == errno.EINVAL
    assert str(refusal.value) == bad.sentence
    assert not refusal.value.ends


def test_every_command_has_a_malformed_packet() -> None:
    assert {bad.packet[:4] for bad in REFUSED} == {kind.magic.to_bytes(4, "big") for kind in m.COMMANDS}


@settings(deadline=None)
@given(anything())
def test_encode_and_decode_are_each_others_inverse(message: m.Message) -> None:
    packet = message.encode()
    assert packet[:4] == message.magic.to_bytes(4, "big")
    assert type(message).decode(packet) == message


@settings(deadline=None)
@given(st.sampled_from(sorted(KINDS.values(), key=lambda kind: kind.title)), st.binary(max_size=64))
def test_whatever_claims_to_be_a_message_is_one_or_is_refused(kind: type[m.Message], rest: bytes) -> None:
    packet = kind.magic.to_bytes(4, "big") + rest
    try:
        message = kind.decode(packet)
        message.check()
    except RefusalError as refusal:
        number, again = refusal.errno, packet
    else:
        number, again = errno.EINVAL, message.encode()
    assert (number, again) == (errno.EINVAL, packet)


def test_messages_of_different_kinds_are_not_equal() -> None:
    assert m.SetType(0) != m.Reply(0)
    assert m.Open(b"/a", 0) != m.OpenBlockDevice(b"/a", 0)
    assert m.SetSource(b"a") != m.SetSource(b"b")
    assert m.Mount(1) != 1


def test_a_message_shows_its_fields() -> None:
    assert repr(m.SetMountPoint(b"/mnt", 0o040000)) == "SetMountPoint(path=b'/mnt', kind=16384)"
    assert repr(m.Goodbye(1)) == "Goodbye(exit_code=1)"


@pytest.mark.parametrize("path", [b"", b"a\0b", b"x" * layouts.LARGEST_PACKET])
def test_what_the_wire_cannot_say_is_not_encoded(path: bytes) -> None:
    with pytest.raises(ValueError, match=r"open command: "):
        m.Open(path, 0).encode()


def test_the_largest_packet_is_sent_and_read() -> None:
    longest = m.SetSource(b"x" * (layouts.LARGEST_PACKET - 5))
    assert len(longest.encode()) == layouts.LARGEST_PACKET
    assert m.SetSource.decode(longest.encode()) == longest


def test_the_allowed_mount_flags_are_those_that_only_restrict() -> None:
    remount, bind, move, mandlock = 32, 4096, 8192, 64
    assert layouts.MS_ALLOWED == 0x120_8D9F
    assert not layouts.MS_ALLOWED & (remount | bind | move | mandlock)


def test_golden_packets_are_told_apart_by_their_magic() -> None:
    assert len({golden.packet for golden in VALID}) == len(VALID)
    assert all(len(golden.packet) >= 8 for golden in VALID)
