"""``fuservice`` itself: what it says when a command is missing or wrong, and how failures become words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuservice import __version__, errors
from fuservice.cli import listen
from fuservice.cli.main import ADMINISTRATION, COMMANDS, EVERYDAY, main, parser


@pytest.mark.parametrize("words", [[], ["--nosuch"], ["serve"], ["mount"]])
def test_a_wrong_command_line_is_64_and_shows_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == errors.EXIT_USAGE
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("usage: fuservice")
    assert said.err.splitlines()[-1].startswith("fuservice")


@pytest.mark.parametrize(("word", "says"), [
    ("unmount", "unmount: is no command: did you mean umount?"), ("mout", "mout: is no command: did you mean mount?"),
    ("xyzzy", "xyzzy: is no command: fuservice --help lists them"), (__file__, f"{__file__}: is no command: to mount it, fuservice mount {__file__}"),
])  # fmt: skip
def test_what_is_no_command_is_told_with_what_may_be_meant(
    word: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "x"]) == errors.EXIT_USAGE
    assert capsys.readouterr() == ("", f"fuservice: {says}\n")


def test_help_and_version_are_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in ((["--version"], f"fuservice {__version__}\n"), (["--help"], "usage: fuservice")):
        with pytest.raises(SystemExit) as error:
            main(words)
        assert error.value.code == 0
        assert capsys.readouterr().out.startswith(expected)


def test_every_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """24 lines of 80 characters, with a line for the prompt that follows."""
    for words in ([], *([name] for name in COMMANDS)):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= (23 if words in ([], *([name] for name in EVERYDAY)) else 40), words
        assert max(map(len, lines)) < 80, words


def test_every_command_explains_itself() -> None:
    told = parser().format_help()
    assert all(f"\n  {name} " in told for name in EVERYDAY) and all(name in told for name in ADMINISTRATION)


def raising(error: BaseException) -> Callable[[object], None]:
    """Return a command that fails with *error*."""

    def run(_options: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("words"), 64),
        (errors.NoServiceError("words"), 2),
        (errors.PolicyError("words"), 1),
        (errors.ImageError("words"), 1),
        (errors.SystemCallError("words"), 1),
        (errors.RemoteProtocolError("words"), 1),
        (errors.RefusalError(13, "words"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_known_failure_is_one_line_and_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listen, "run", raising(error))
    assert main(["listen", "memtree"]) == code
    assert capsys.readouterr().err == "fuservice: words\n"


def test_a_strangers_words_cannot_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listen, "run", raising(errors.PolicyError("\x1b[2J\nfuservice: all is well")))
    assert main(["listen", "memtree"]) == 1
    assert capsys.readouterr().err == "fuservice: \\x1b[2J\\nfuservice: all is well\n"


def test_an_unknown_failure_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "run", raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["listen", "memtree"])
