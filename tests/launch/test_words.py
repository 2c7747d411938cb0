"""What becomes of a server's bytes: lines, whole and few, and a state that cannot be forged into more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fuservice.launch.words import BURST, LONGEST_KEY, LONGEST_STATUS, MOST_FACTS, RATE, Words, parse_status


def test_lines_come_whole_however_they_are_cut() -> None:
    words = Words()
    assert words.take(b"fir", 0) == []
    assert words.take(b"st\nsecond\nthi", 0) == ["first", "second"]
    assert words.take(b"rd", 0) == []
    assert words.take(b"", 0) == ["third"]


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_whatever_comes_every_line_is_printable_and_short(pieces: list[bytes]) -> None:
    words = Words()
    for line in [line for piece in [*(piece for piece in pieces if piece), b""] for line in words.take(piece, 0)]:
        assert line.isprintable() and len(line) <= 201
    assert all(key.isascii() and value.isprintable() for key, value in words.status.items())


def test_beyond_a_burst_lines_are_counted_and_the_count_is_told_once_a_second() -> None:
    words = Words()
    assert len(words.take(b"x\n" * (BURST + 100), 1.0)) == BURST
    assert words.count(1.5) == ["100 lines suppressed"]
    assert words.take(b"y\n" * 100, 2.0) == ["y"] * RATE
    assert words.count(2.4) == [] and words.count(2.5) == ["90 lines suppressed"]
    assert words.take(b"", 2.6) == []
    assert words.take(b"z\n" * 100, 2.6) == ["z"] * 6  # what has come together in 0.6 s
    assert words.take(b"", 2.6) == ["94 lines suppressed"]


def test_after_a_while_it_is_heard_again_and_the_count_comes_first() -> None:
    words = Words()
    words.take(b"x\n" * (BURST + 7), 1.0)
    assert words.take(b"calm\n", 60.0) == ["7 lines suppressed", "calm"]


def test_a_status_is_no_line_and_the_latest_word_counts() -> None:
    words = Words()
    assert words.take(b"\x01status a=1 b=x,y\nline\n\x01status a=2\n", 0) == ["line"]
    assert words.status == {"a": "2", "b": "x,y"} and words.changed
    words.changed = False
    assert words.take(b"\x01status a=2\n", 0) == [] and not words.changed


def test_what_is_no_status_is_a_line() -> None:
    bad = [
        b"",
        b"a",
        b"A=1",
        b"a=\x1b[m",
        b"=1",
        b"a=1  b=2",
        b"a-b=1",
        b"a" * (LONGEST_KEY + 1) + b"=1",
        b"a=" + b"x" * LONGEST_STATUS,
    ]
    words = Words()
    lines = words.take(b"".join(b"\x01status " + text + b"\n" for text in bad), 0)
    assert len(lines) == len(bad) and words.status == {}


def test_a_status_has_so_many_facts_and_no_more() -> None:
    words = Words()
    for number in range(MOST_FACTS + 5):
        words.take(b"\x01status key_%d=1\n" % number, 0)
    assert len(words.status) == MOST_FACTS
    assert words.take(b"\x01status key_0=2\n", 0) == [] and words.status["key_0"] == "2"


@given(st.dictionaries(st.from_regex(r"[a-z0-9_]{1,32}", fullmatch=True), st.from_regex(r"[!-~]{0,20}", fullmatch=True), min_size=1, max_size=5))  # fmt: skip
def test_what_is_told_is_what_is_read(facts: dict[str, str]) -> None:
    assert parse_status(" ".join(f"{key}={value}" for key, value in facts.items()).encode()) == facts
