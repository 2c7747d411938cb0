"""``fuservice log MOUNTPOINT``: what the server of a mount has said: from the notes beside its receipt, or from the journal."""

from __future__ import annotations

import os
import sys

from fuservice.cli import mine
from fuservice.cli.list import gather
from fuservice.errors import LONGEST_SENTENCE, SystemCallError, UsageError, printable
from fuservice.launch import receipts
from fuservice.linux.cgroup import is_in_user_manager, unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

    from fuservice.cli.list import Row

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("log", help="show what the server of a mount has said", description=__doc__)
    command.add_argument(
        "mount_point", metavar="MOUNTPOINT", help="or its source, or its number, of one that is gone too"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the notes of it, or become journalctl(1). FuserviceError where nobody has its server's words."""
    facts = mine.about(options.mount_point, receipts.read_all())
    if facts is not None and not receipts.is_open(facts) and mine.top(mine.place(options.mount_point)) is not None:
        facts = None  # something else is mounted there now
    number = facts.get("id") if facts is not None else None
    notes = receipts.notes(number) if isinstance(number, int) else None
    if facts is None or notes is None:
        _journal(options.mount_point)
    before = facts.get("complaints")
    lines = [*(map(str, before) if isinstance(before, list) else ()), *notes]
    print(*(map(printable_line, lines)), sep="\n") if lines else print(
        f"its server has said nothing, mount {number}", file=sys.stderr
    )


def printable_line(line: str) -> str:
    """Return a server's *line* safe for a terminal."""
    return printable(line, LONGEST_SENTENCE)


def _journal(typed: str) -> NoReturn:
    path = mine.find(typed, mine.open_receipts())
    # Ours are those that a helper has recorded, or whoever looks after the server: a user's helper can write down nothing.
    ours = (row for row in gather(everything=True) if row.facts or row.told or row.receipt)
    rows = [row for row in ours if row.mount.mount_point == path]
    if not rows:
        raise UsageError(f"{typed}: nothing that a service serves is mounted there (see `fuservice list')")
    try:
        os.execvp("journalctl", ["journalctl", "--no-pager", *words(rows[-1])])
    except OSError as error:
        raise SystemCallError(f"journalctl: {error.strerror}") from None


def words(row: Row) -> list[str]:
    """Return what selects the lines of a mount's server (journalctl(1)). SystemCallError where they are in no journal."""
    if row.server is None:  # of a unit that is gone nobody knows the name: what all of its type have said since
        kind = row.as_json()["type"]
        return [f"--identifier=fuservice-{kind}", f"--since=@{row.facts.get('since', 0)}"]
    name = unit(row.server.pid)
    if name is None:
        raise SystemCallError(
            f"{row.mount.mount_point}: its server is in no unit: its log is the standard error of whoever has started it"
        )
    return [f"--{'user-unit' if is_in_user_manager(row.server.pid) else 'unit'}={name}"]
