"""Receipts: whole or not there, for their owner alone, pruned, and never in the way of a mount."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuservice.launch import receipts


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory of receipts, which is not there yet."""
    where = tmp_path / "state/fuservice/mounts"
    monkeypatch.setattr(receipts, "directory", lambda: os.fspath(where))
    return where


def test_what_was_written_is_read_and_is_its_owners_alone(place: Path) -> None:
    os.umask(0)
    assert receipts.write({"source": "a.img", "argv": ["fuservice", "mount", "\udcff"]}) == 1
    assert receipts.write({"source": "b.img"}) == 2
    first, second = receipts.read_all().values()
    assert (first["id"], first["source"], first["argv"]) == (1, "a.img", ["fuservice", "mount", "\udcff"])
    assert second["source"] == "b.img" and isinstance(second["began"], float)
    assert sorted(os.listdir(place)) == ["1.json", "2.json"]
    assert stat.S_IMODE((place / "1.json").stat().st_mode) == 0o600
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (place, place.parent, place.parent.parent)]
    assert modes == [0o700, 0o755, 0o755]
    os.umask(0o022)


def test_the_first_end_holds(place: Path) -> None:
    number = receipts.write({})
    assert number is not None and receipts.is_open(receipts.read(number) or {})
    receipts.ended(number, receipts.UNMOUNTED)
    first = receipts.read(number)
    receipts.ended(number, "unmounted by somebody who knows")
    receipts.ended(number, "the server was killed")
    facts = receipts.read(number)
    assert first is not None and facts == first | {"reason": "unmounted by somebody who knows"}
    assert not receipts.is_open(facts)
    receipts.ended(77, "nobody knows it")
    assert os.listdir(place) == ["1.json"]


def test_a_mount_of_another_boot_is_not_there_any_more(place: Path) -> None:
    number = receipts.write({"boot": "before"})
    assert place.exists() and number is not None and not receipts.is_open(receipts.read(number) or {"boot": None})


def test_two_at_once_get_two_numbers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert receipts.reserve() == 1
    monkeypatch.setattr(receipts, "_numbers", lambda _where: [])  # as one who has looked just before
    assert receipts.reserve() == 2
    assert receipts.write({"source": "b"}, 2) == 2 and receipts.write({"source": "a"}, 1) == 1
    assert json.loads((place / "1.json").read_text())["source"] == "a"
    assert sorted(os.listdir(place)) == ["1.json", "2.json"]


def test_notes_are_kept_beside_the_receipt_but_not_without_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = receipts.reserve()
    assert number is not None and receipts.notes(number) == []
    receipts.note(number, "a word \udcff")
    assert receipts.write({}, number, noting=True) == number
    monkeypatch.setattr(receipts, "LARGEST", 100)
    for _ in range(10):
        receipts.note(number, "x" * 60)
    kept = receipts.notes(number)
    assert kept is not None and len(kept) == 2 and kept[0].endswith(" a word \\udcff")
    assert stat.S_IMODE((place / "1.log").stat().st_mode) == 0o600
    receipts.note(7, "nobody")
    assert receipts.notes(7) is None and receipts.write({}) == 2 and receipts.notes(2) is None


def test_the_oldest_that_have_ended_go_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MOST", 3)
    for number in range(1, 6):
        assert receipts.write({"ended": None if number == 2 else 1.0}) == number
    assert sorted(receipts.read_all()) == [2, 3, 4, 5]  # the second may be mounted
    os.utime(place / "3.json", (0, 0))
    assert receipts.write({}) == 6
    assert sorted(receipts.read_all()) == [2, 4, 5, 6]


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 60_000, b'{"a": 1}' + b" " * 70_000 + b"x"])
def test_what_is_no_receipt_is_passed_over(place: Path, text: bytes) -> None:
    assert receipts.write({"source": "a"}) == 1
    (place / "2.json").write_bytes(text)
    (place / "odd.json").write_text("{}")
    (place / "9").write_text("{}")
    assert 1 in receipts.read_all() and not set(receipts.read_all()) - {1, 2}
    receipts.ended(2, "no matter")


def test_a_command_line_without_end_is_left_out(place: Path) -> None:
    number = receipts.write({"argv": ["x" * 100_000], "source": "a"})
    assert number is not None and (receipts.read(number) or {})["argv"] is None
    assert place.exists()


@pytest.mark.parametrize("where", ["", "/proc/nowhere", os.devnull])
def test_where_nothing_can_be_written_nothing_fails(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "directory", lambda: where)
    assert receipts.write({}) is None and receipts.read_all() == {} and receipts.read(1) is None
    receipts.ended(1, "nothing")


def test_a_directory_that_others_may_write_to_is_not_used(place: Path) -> None:
    place.mkdir(parents=True)
    place.chmod(0o777)
    assert receipts.write({}) is None


def test_each_user_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert receipts.directory() == "/home/a/.local/state/fuservice/mounts"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert receipts.directory() == "/home/a/.local/state/fuservice/mounts"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert receipts.directory() == "/state/fuservice/mounts"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    assert receipts.directory() == ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    expected = receipts.SYSTEM if os.stat("/var/lib").st_uid == 0 else ""  # noqa: PTH116
    assert receipts.directory() == expected


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers() | st.none(), max_size=5))
def test_whatever_the_facts_are_they_come_back(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, receipts.Fact]
) -> None:
    where = tmp_path_factory.mktemp("receipts") / "mounts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipts, "directory", lambda: os.fspath(where))
        number = receipts.write(facts)
        assert number is not None
        read = receipts.read(number)
    assert read is not None and facts.items() <= read.items()
