"""``fuservice COMMAND``: everything but the mount helper. argparse and the commands load here, off the mount path."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from fuservice import __version__
from fuservice.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    LONGEST_SENTENCE,
    FuserviceError,
    UsageError,
    printable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

#: Each is a module beside this one. First what everybody needs; what is for administrators has one line in the help.
EVERYDAY: Final = ("mount", "umount", "list", "run", "enter", "why", "log", "check", "drivers", "doctor")
ADMINISTRATION: Final = ("listen", "serve", "units", "broker", "prove", "config", "completion")
COMMANDS: Final = (*EVERYDAY, *ADMINISTRATION)
#: Those that execute a command of the caller's: what is behind the first "--". argparse would look into it (bpo-14191).
WITH_COMMAND: Final = ("run", "enter")


class Parser(argparse.ArgumentParser):
    """argparse with our exit code for a command line that cannot be carried out (2 is "no service")."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


class Top(Parser):
    """The parser of ``fuservice`` itself, whose help fits a screen."""

    def format_help(self) -> str:
        """Return the help: a line for each command that everybody needs."""
        (commands,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        helps = {action.dest: action.help for action in commands._choices_actions}
        lines = [f"  {name:<11}{helps[name]}" for name in EVERYDAY if name in helps]
        return "\n".join((
            "usage: fuservice COMMAND [ARGUMENTS]", "", f"{self.description}", "", *lines, "",
            f"For administrators: {', '.join(ADMINISTRATION)}.", "",
            "  -h, --help         this; of a command: fuservice COMMAND --help", "  --version          the version", "", f"{self.epilog}", "",
        ))  # fmt: skip


def parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of the command line, as far as it is about the commands *names*."""
    top = Top(
        prog="fuservice", description="Mount filesystems that you do not trust.",
        epilog="To begin with: fuservice mount thing.img. All the rest is in fuservice(1).",
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"fuservice {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser, prog="fuservice")
    for name in names:
        import_module(f"fuservice.cli.{name}").add_command(commands)
    return top


def _check_command(word: str) -> NoReturn:
    """Raise UsageError with what may have been meant, where *word* is no command."""
    from difflib import get_close_matches  # where somebody has mistyped, time is no matter

    if os.path.exists(word):  # noqa: PTH110
        raise UsageError(f"{word}: is no command: to mount it, fuservice mount {word}")
    meant = get_close_matches(word, COMMANDS, 1, 0.6)
    hint = f"did you mean {meant[0]}?" if meant else "fuservice --help lists them"
    raise UsageError(f"{word}: is no command: {hint}")


def _options(words: list[str]) -> argparse.Namespace:
    """Return what was typed. Only the module of its command is loaded: a listener lives long, and shall be no larger than its own code."""
    given = argparse.Namespace()
    if not words or words[0].startswith("-"):
        return parser(() if words == ["--version"] else COMMANDS).parse_args(words, given)
    if words[0] not in COMMANDS:
        _check_command(words[0])
    if words[0] in WITH_COMMAND:
        end = words.index("--") if "--" in words else len(words)
        given.command, words = words[end + 1 :], words[:end]
    return parser(words[:1]).parse_args(words, given)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out *argv* (without the program's name); return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _options(words)
        code: int | None = options.run(options)
        sys.stdout.flush()
    except FuserviceError as error:
        print(f"fuservice: {printable(str(error), LONGEST_SENTENCE)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fuservice: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read what we print has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain at its end
        return EXIT_FAILURE
    return EXIT_OK if code is None else code


if __name__ == "__main__":  # units name Python, and no script that installers rewrite
    sys.exit(main())
