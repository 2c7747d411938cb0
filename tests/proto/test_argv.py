"""The argv file: as libfuse writes it, compact, and in every way in which it can be wrong."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuservice.errors import RemoteProtocolError, UsageError
from fuservice.proto import argv
from tests.packets.golden import ARGV_BAD, ARGV_COMPACT, ARGV_TYPED, ARGV_WORDS, Bad

words = st.lists(st.binary(max_size=40).filter(lambda word: b"\0" not in word), min_size=1, max_size=30)


def test_the_file_has_room_for_every_word_that_was_typed() -> None:
    assert argv.encode(ARGV_WORDS, typed=5) == ARGV_TYPED


def test_without_a_count_the_file_is_compact() -> None:
    assert argv.encode(ARGV_WORDS) == ARGV_COMPACT


@pytest.mark.parametrize("file", [ARGV_TYPED, ARGV_COMPACT], ids=["typed", "compact"])
def test_both_kinds_are_read(file: bytes) -> None:
    assert argv.decode(file) == ARGV_WORDS


@pytest.mark.parametrize("bad", ARGV_BAD, ids=lambda bad: bad.name)
def test_a_bad_file_is_refused_with_its_sentence(bad: Bad) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        argv.decode(bad.packet)
    assert str(error.value) == bad.sentence


@settings(deadline=None)
@given(words, st.integers(0, 60))
def test_what_is_written_is_read_and_the_strings_begin_behind_the_room(told: list[bytes], typed: int) -> None:
    file = argv.encode(told, typed)
    assert argv.decode(file) == told
    (first,) = struct.unpack_from(">I", file, 8)
    assert first == 8 + 8 * max(typed, len(told))
    assert file[8 + 8 * len(told) : first].strip(b"\0") == b""
    assert len(file) == first + sum(len(word) + 1 for word in told)


def test_words_that_overlap_so_that_they_are_more_than_the_file_are_refused() -> None:
    """A thousand words that are all the same megabyte would be a gigabyte in memory."""
    start, size = 8 + 8 * argv.MOST_WORDS, 10_000
    file = struct.pack(">4sI", b"ARGS", argv.MOST_WORDS) + struct.pack(">II", start, size) * argv.MOST_WORDS
    file += b"x" * (size - 1) + b"\0"
    with pytest.raises(RemoteProtocolError, match=r"holds 10238976 bytes of words: they overlap"):
        argv.decode(file)


def test_what_follows_the_strings_is_not_looked_at() -> None:
    assert argv.decode(ARGV_COMPACT + b"more") == ARGV_WORDS


def test_the_limits_are_what_is_said() -> None:
    most = [b""] * argv.MOST_WORDS
    assert argv.decode(argv.encode(most)) == most
    with pytest.raises(UsageError, match="1025 arguments, at most 1024 can be passed"):
        argv.encode([*most, b""])
    largest = b"x" * (argv.LARGEST_FILE - 17)
    assert argv.decode(argv.encode([largest])) == [largest]
    with pytest.raises(UsageError, match="1048577 bytes of arguments, at most 1048576 can be passed"):
        argv.encode([largest + b"x"])


def test_a_file_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(RemoteProtocolError, match="has 1048577 bytes, expected at most 1048576"):
        argv.decode(bytes(argv.LARGEST_FILE + 1))
    with pytest.raises(RemoteProtocolError, match=r"says argc 1025, expected 1\.\.1024"):
        argv.decode(struct.pack(">4sI", b"ARGS", 1025) + bytes(10_000))
