"""The broker's wire: what is sent comes out as it went in, and whatever else comes is refused by a sentence."""

from __future__ import annotations

import contextlib
import errno
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuservice.broker import wire
from fuservice.errors import RefusalError

TEXTS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=60)
PAIRS = st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=wire.MOST_PAIRS)


@given(TEXTS, TEXTS, st.integers(0, (1 << 32) - 1), PAIRS)
def test_a_request_to_mount_comes_out_as_it_went_in(
    source: str, subtype: str, flags: int, pairs: list[tuple[str, str | None]]
) -> None:
    out = wire.request(wire.Mount(source, subtype, flags, pairs).encode())
    assert isinstance(out, wire.Mount)
    assert (out.source, out.subtype, out.flags, [*out.pairs]) == (source, subtype, flags, pairs)


@given(st.integers(0, (1 << 64) - 1))
def test_a_request_to_unmount_comes_out_as_it_went_in(mount_id: int) -> None:
    out = wire.request(wire.Unmount(mount_id).encode())
    assert isinstance(out, wire.Unmount) and out.mount_id == mount_id


def test_answers_come_out_as_they_went_in() -> None:
    out = wire.answer(wire.Answer(errno.EPERM, 7, "não").encode())
    assert isinstance(out, wire.Answer) and (out.error, out.mount_id, out.sentence) == (errno.EPERM, 7, "não")
    challenge = wire.answer(wire.Challenge("word").encode())
    assert isinstance(challenge, wire.Challenge) and challenge.word == "word"


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: b"MONT\0\1" + rest))
@example(b"")
def test_no_packet_is_more_than_refused(packet: bytes) -> None:
    for read in (wire.request, wire.answer):
        with contextlib.suppress(RefusalError):
            assert read(packet) is not None


GOOD = wire.Mount("s", "t", 0, [("max_read", "1")]).encode()

MALFORMED = {
    "empty": (b"", "begins with"),
    "another magic": (b"DOIT" + GOOD[4:], "begins with"),
    "half a head": (GOOD[:7], "at least 12 bytes"),
    "version 0": (b"MONT\0\0" + GOOD[6:], "version 1, the request is of version 0"),
    "version 2": (b"MONT\0\2" + GOOD[6:], "version 1, the request is of version 2"),
    "cut in a text": (GOOD[:-1], "a text of 1 bytes"),
    "cut in a length": (GOOD[:-2], "before its last text"),
    "more than there is": (GOOD + b"x", "1 bytes follow"),
    "too many options": (struct.pack(">4sHHI", b"MONT", 1, 17, 0) + GOOD[12:], "17 options"),
    "a text that is too long": (
        struct.pack(">4sHHIH", b"MONT", 1, 0, 0, 256) + bytes([65]) * 258 + b"\0\0",
        "255 are the most",
    ),
    "no source": (struct.pack(">4sHHIHH", b"MONT", 1, 0, 0, 0xFFFF, 0), "cannot be absent"),
    "an option without a name": (struct.pack(">4sHHIHHHH", b"MONT", 1, 1, 0, 0, 0, 0xFFFF, 0), "cannot be absent"),
    "a newline": (wire.Mount("a\nb", "t", 0, []).encode(), "control characters"),
    "a NUL": (wire.Mount("a\0b", "t", 0, []).encode(), "control characters"),
    "over the size": (GOOD + bytes(wire.LARGEST), "at most 4096 bytes"),
    "unmount, with a tail": (wire.Unmount(1).encode() + b"x", "16 bytes, not 17"),
    "unmount, padded": (struct.pack(">4sHHQ", b"UMNT", 1, 1, 1), "padding"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_is_told_what_is_wrong_with_it(what: str) -> None:
    packet, words = MALFORMED[what]
    with pytest.raises(RefusalError, match=words) as caught:
        wire.request(packet)
    assert caught.value.errno == errno.EPROTO


def test_what_does_not_fit_is_refused_before_it_is_sent() -> None:
    for request in (wire.Mount("x" * 256, "t", 0, []), wire.Mount("x", "t", 0, [("o", None)] * 17)):
        with pytest.raises(RefusalError) as caught:
            request.encode()
        assert caught.value.errno == errno.EINVAL
