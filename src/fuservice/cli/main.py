"""``fuservice COMMAND``: everything but the mount helper. argparse and the commands load here, off the mount path."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from fuservice import __version__
from fuservice.errors import EXIT_OK, EXIT_USAGE, LONGEST_SENTENCE, FuserviceError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

#: Each is a module beside this one.
COMMANDS: Final = ("check", "config", "list", "listen", "log", "prove", "serve", "umount", "units")


class Parser(argparse.ArgumentParser):
    """argparse with our exit code for a command line that cannot be carried out (2 is "no service")."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of the command line, as far as it is about the commands *names*."""
    top: argparse.ArgumentParser = Parser(  # also the class of the commands' parsers
        prog="fuservice", description="Mount filesystems that you do not trust.", epilog="To mount: fuservicemount(8)."
    )
    top.add_argument("--version", action="version", version=f"fuservice {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name in names:
        import_module(f"fuservice.cli.{name}").add_command(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out *argv* (without the program's name); return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    # A listener lives long, and shall be no larger than its own code.
    options = parser(words[:1] if words and words[0] in COMMANDS else COMMANDS).parse_args(words)
    try:
        options.run(options)
    except FuserviceError as error:
        print(f"fuservice: {printable(str(error), LONGEST_SENTENCE)}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":  # units name Python, and no script that installers rewrite
    sys.exit(main())
