"""A driver's manifest: which words are files, said in lines; what is not understood is an error with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuservice.errors import PolicyError
from fuservice.helper import manifest
from fuservice.helper.manifest import SOURCE, Manifest, load, parse


def rules(found: Manifest) -> dict[str, tuple[str, bool]]:
    """Return the rules of *found* as plain values."""
    return {name: (rule.kind, rule.writable) for name, rule in found.rules.items()}


def test_lines_are_rules() -> None:
    found = parse("# a driver\n\nsource file ro\noption journal block rw # the log\n\toption key any ro\n", "m")
    assert rules(found) == {SOURCE: ("file", False), "journal": ("block", True), "key": ("any", False)}
    assert not found.read_only


def test_readonly_is_a_word_of_its_own() -> None:
    assert parse("readonly\nsource any rw", "m").read_only


def test_an_empty_manifest_grants_nothing() -> None:
    assert rules(parse("", "m")) == {}


@pytest.mark.parametrize("line", [
    "source", "source file", "source file rx", "source fifo ro", "source file ro extra", "sources file ro", "option file ro",
    "option a file", "readonly yes", "source FILE ro", "source file  , ro", "\0", "option = file ro x",
])  # fmt: skip
def test_what_is_not_understood_is_named_with_its_line(line: str) -> None:
    with pytest.raises(PolicyError, match=r"^/m/x:3: expected `source KIND ACCESS'"):
        parse(f"source file ro\n# comment\n{line}\n", "/m/x")


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Give two empty directories of manifests: the administrator's and the drivers'."""
    first, second = tmp_path / "etc", tmp_path / "lib"
    first.mkdir()
    second.mkdir()
    monkeypatch.setattr(manifest, "DIRECTORIES", (str(first), str(second)))
    return first, second


def test_without_one_the_source_may_be_read_and_written(directories: tuple[Path, Path]) -> None:
    assert rules(load("x")) == {SOURCE: ("any", True)}


def test_the_administrators_comes_first(directories: tuple[Path, Path]) -> None:
    for directory, line in zip(directories, ("source block ro", "source file rw"), strict=True):
        (directory / "x").write_text(line)
    assert rules(load("x")) == {SOURCE: ("block", False)}
    (directories[0] / "x").unlink()
    assert rules(load("x")) == {SOURCE: ("file", True)}


def test_a_manifest_that_cannot_be_read_stops_the_mount(directories: tuple[Path, Path]) -> None:
    (directories[0] / "x").mkdir()
    (directories[0] / "y").write_bytes(b"source file ro # caf\xe9")
    (directories[0] / "z").write_text("#" * 5_000)
    for name, says in (("x", "cannot be read"), ("y", "cannot be read"), ("z", "over 4096 characters")):
        with pytest.raises(PolicyError, match=says) as refused:
            load(name)
        assert str(refused.value).startswith(f"{directories[0]}/{name}: ")


def test_a_directory_that_is_a_file_is_passed_over(directories: tuple[Path, Path]) -> None:
    directories[0].rmdir()
    directories[0].write_text("")
    (directories[1] / "x").write_text("readonly")
    assert load("x").read_only
