"""Mount options as text: how they are cut, and which words are flags."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuservice.proto import layouts
from fuservice.proto.options import CLEARS, SETS, apply, join, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("ro", [("ro", None)]),
        ("ro,fsname=a", [("ro", None), ("fsname", "a")]),
        (",,ro,,", [("ro", None)]),
        ("a=", [("a", "")]),
        ("a=b=c", [("a", "b=c")]),
        (r"fsname=a\,b,ro", [("fsname", "a,b"), ("ro", None)]),
        (r"fsname=a\\,ro", [("fsname", "a\\"), ("ro", None)]),
        (r"a\b", [("ab", None)]),
        ("a\\", [("a", None)]),
        ("=a", [("", "a")]),
        ("x-é=ü", [("x-é", "ü")]),
    ],
)
def test_options_are_cut_at_commas_and_a_backslash_keeps_one(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert split(text) == expected


names = st.text(st.characters(codec="utf-8", exclude_characters="="), min_size=1, max_size=8)
values = st.none() | st.text(max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(names, values), max_size=8))
def test_what_is_escaped_and_joined_is_split_again(options: list[tuple[str, str | None]]) -> None:
    written = (join(name, value).replace("\\", "\\\\").replace(",", "\\,") for name, value in options)
    assert split(",".join(written)) == options


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_split(text: str) -> None:
    assert all(name or value is not None for name, value in split(text))


def test_every_word_sets_or_clears_what_a_server_may_ask_for() -> None:
    assert not set(SETS) & set(CLEARS)
    for flag in (*SETS.values(), *CLEARS.values()):
        assert flag.bit_count() == 1 and flag & layouts.MS_ALLOWED
    for word, flag in SETS.items():
        assert apply(0, word) == flag
    for word, flag in CLEARS.items():
        assert apply(layouts.MS_ALLOWED, word) == layouts.MS_ALLOWED & ~flag


@pytest.mark.parametrize(("words", "flags"), [("ro,rw", 0), ("rw,ro", layouts.MS_RDONLY), ("fsname", 0), ("RO", 0)])
def test_the_last_word_holds_and_others_change_nothing(words: str, flags: int) -> None:
    found = 0
    for name, _ in split(words):
        found = apply(found, name)
    assert found == flags
