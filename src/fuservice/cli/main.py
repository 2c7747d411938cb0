"""``fuservice COMMAND``: everything but the mount helper. argparse and the commands load here, off the mount path."""

from __future__ import annotations

import argparse
import sys

from fuservice import __version__
from fuservice.cli import config, listen, prove, serve, umount, units
from fuservice.cli import list as list_command
from fuservice.errors import EXIT_OK, EXIT_USAGE, LONGEST_SENTENCE, FuserviceError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse with our exit code for a command line that cannot be carried out (2 is "no service")."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top: argparse.ArgumentParser = Parser(  # also the class of the commands' parsers
        prog="fuservice", description="Mount filesystems that you do not trust.", epilog="To mount: fuservicemount(8)."
    )
    top.add_argument("--version", action="version", version=f"fuservice {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in (config, list_command, listen, prove, serve, umount, units):
        command.add_command(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out *argv* (without the program's name); return the exit code."""
    options = parser().parse_args(argv)
    try:
        options.run(options)
    except FuserviceError as error:
        print(f"fuservice: {printable(str(error), LONGEST_SENTENCE)}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK
