"""What ``listen`` and ``serve`` have in common: which cage, where the log goes, what is recorded."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from fuservice.cage.plan import WALLS
from fuservice.errors import UsageError
from fuservice.launch.child import DEBUG

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    command.add_argument("--cage", default="", metavar="-WALL,…",
                         help="a weaker cage, without these walls: for debugging (whole)")  # fmt: skip
    command.add_argument("--debug", action="store_true", help="log whole tracebacks")


def walls(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the walls to leave out. UsageError where one is none."""
    text: str = options.cage
    words = text.split(",") if text else []
    if not all(word[:1] == "-" and word[1:] in WALLS for word in words):
        raise UsageError(f"--cage={text}: expected -WALL,-WALL…, walls to leave out of {', '.join(WALLS)}")
    return tuple(word[1:] for word in words)


def prepare(options: argparse.Namespace) -> tuple[str, ...]:
    """Do what the options say about this process and those that it starts; return the walls to leave out."""
    without = walls(options)
    for number in range(3):  # or a pipe of ours could get one of these numbers
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if options.debug:
        os.environ[DEBUG] = "1"
    if without:
        Log()(4, f"the cage of all servers is weaker than it could be: --cage={cage_word(without)}")
    return without


def cage_word(without: Collection[str]) -> str:
    """Return what is recorded of a cage."""
    return ",".join(f"-{wall}" for wall in without) or "whole"


class Log:
    """Standard error; if that is the journal, lines have its priorities (sd-daemon(3))."""

    def __init__(self) -> None:
        self._is_journal = False
        with suppress(OSError):
            status = os.fstat(2)
            self._is_journal = os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"

    def __call__(self, level: int, line: str) -> None:
        """Write *line*, of priority *level* (syslog(3): 3 error to 6 information)."""
        with suppress(OSError):  # whoever reads our log may have gone, and that is no reason to end
            print(f"<{level}>{line}" if self._is_journal else line, file=sys.stderr, flush=True)
