"""What ``listen`` and ``serve`` have in common: which cage, where the log goes, what is recorded."""

from __future__ import annotations

import os
from contextlib import suppress

from fuservice.cage.plan import WALLS
from fuservice.errors import UsageError
from fuservice.launch.child import DEBUG
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection
    from typing import Final


#: In the place of the number in JOURNAL_STREAM, where whoever starts us knows that it is a journal, and not yet its number.
A_JOURNAL: Final = "yes"


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


def standard_input() -> FdSeqPacket:
    """Return the connection that is standard input, as inetd has it; UsageError where that is none. Of 0 to 2 null takes the place."""
    own = Fd(os.dup(0))
    try:
        connection = FdSeqPacket(own)
    except OSError as error:
        own.close()
        raise UsageError(
            f"serve: standard input: {error.strerror}: expected a connection, from systemd or inetd (people start "
            "`fuservice listen')"
        ) from None
    # inetd makes it standard output and error too: what is said there would be taken for the conversation.
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2, 0):
        if os.path.sameopenfile(0, number):
            os.dup2(null, number)
    os.close(null)
    return connection


def cage_word(without: Collection[str]) -> str:
    """Return what is recorded of a cage."""
    return ",".join(f"-{wall}" for wall in without) or "whole"


class Log:
    """Standard error; if that is the journal, lines have its priorities (sd-daemon(3))."""

    def __init__(self) -> None:
        self._is_journal = False
        with suppress(OSError):
            status = os.fstat(2)
            stream = os.environ.get("JOURNAL_STREAM")
            self._is_journal = stream in (f"{status.st_dev}:{status.st_ino}", A_JOURNAL)

    def __call__(self, level: int, line: str) -> None:
        """Write *line*, of priority *level* (syslog(3): 3 error to 6 information)."""
        words = f"<{level}>{line}\n" if self._is_journal else f"{line}\n"
        # Whoever reads our log may have gone, and that is no reason to end; nor is what he left unread kept for the end.
        with suppress(OSError):
            os.write(2, words.encode("utf-8", "backslashreplace"))
