"""The tree of failures, and what makes a stranger's words safe to show."""

from __future__ import annotations

import errno

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuservice import errors
from fuservice.errors import FuserviceError, LocalProtocolError, RefusalError, printable

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FuserviceError)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words: é, 漢", "plain words: é, 漢"),
        ("", ""),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("back\\slash", r"back\\slash"),
        ("right\u202eto left", r"right\u202eto left"),
        ("no\u00a0break", r"no\xa0break"),
        ("\udcff", r"\udcff"),
        ("\U0001d173", r"\U0001d173"),
        (b"bytes\0", r"bytes\x00"),
        (b"\xff\xfe", r"\\xff\\xfe"),
        (b"caf\xc3\xa9", "café"),
    ],
)
def test_what_is_not_printable_is_shown_as_an_escape(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_long_words_are_cut() -> None:
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 200 + "…"


@settings(deadline=None)
@given(st.one_of(st.text(st.characters()), st.binary(), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl"]))))
@example("\n" * 1000)
@example("\U0001d173" * 1000)
@example(b"\xff" * 1000)
def test_the_result_is_printable_one_line_and_bounded(text: str | bytes) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= errors.LONGEST_WORD + 1
    shown.encode()


@settings(deadline=None)
@given(st.text(max_size=50), st.text(max_size=50))
def test_different_words_look_different(one: str, other: str) -> None:
    # The escapes of 50 characters may have to be cut; what is not cut is unambiguous.
    cut = printable(one).endswith("…") or printable(other).endswith("…")
    assert cut or (printable(one) == printable(other)) == (one == other)


def test_exit_codes_are_these() -> None:
    codes = {kind.__name__: kind.exit_code for kind in TREE}
    assert {name: code for name, code in codes.items() if code != errors.EXIT_FAILURE} == {
        "UsageError": 64,
        "NoServiceError": 2,
    }


def test_our_own_bugs_are_outside_of_the_tree() -> None:
    assert not issubclass(LocalProtocolError, FuserviceError)


def test_a_refusal_has_an_errno_and_a_sentence() -> None:
    assert str(RefusalError(errno.EACCES)) == "Permission denied"
    refusal = RefusalError(errno.EINVAL, "no such thing", ends=True)
    assert (refusal.errno, str(refusal), refusal.ends) == (errno.EINVAL, "no such thing", True)
    assert not RefusalError(errno.EINVAL).ends
