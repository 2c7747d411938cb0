"""What ``listen`` and ``serve`` share: the words for a weaker cage, and lines with priorities for a journal."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from fuservice.cage.plan import WALLS
from fuservice.cli.contained import Log, cage_word, walls
from fuservice.errors import UsageError


def test_walls_are_left_out_by_name_with_a_minus() -> None:
    assert walls(argparse.Namespace(cage="")) == ()
    assert walls(argparse.Namespace(cage="-pid")) == ("pid",)
    every = ",".join(f"-{wall}" for wall in WALLS)
    assert walls(argparse.Namespace(cage=every)) == tuple(WALLS)
    assert (cage_word(()), cage_word(("pid", "net"))) == ("whole", "-pid,-net")


@pytest.mark.parametrize("text", ["pid", "-nosuch", "-pid,", "-pid,net", "-", ",", "none", "--pid"])
def test_other_words_are_no_walls(text: str) -> None:
    with pytest.raises(UsageError, match="expected -WALL,-WALL…, walls to leave out of session, "):
        walls(argparse.Namespace(cage=text))


def test_a_journal_gets_priorities_and_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for status, line in ((os.fstat(2), "<3>words\n"), (tmp_path.stat(), "words\n")):
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        Log()(3, "words")
        assert capfd.readouterr().err == line
    monkeypatch.delenv("JOURNAL_STREAM")
    Log()(3, "words")
    assert capfd.readouterr().err == "words\n"
