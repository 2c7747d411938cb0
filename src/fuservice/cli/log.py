"""``fuservice log MOUNTPOINT``: what the server of a mount has said, from the journal."""

from __future__ import annotations

import os

from fuservice.cli import mine
from fuservice.cli.list import gather
from fuservice.errors import SystemCallError, UsageError
from fuservice.linux.cgroup import is_in_user_manager, unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from fuservice.cli.list import Row

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("log", help="show what the server of a mount has said", description=__doc__)
    command.add_argument("mount_point", metavar="MOUNTPOINT")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Become journalctl(1). FuserviceError where nothing of ours is mounted there, or no journal has its server's words."""
    path = mine.find(options.mount_point, mine.open_receipts())
    # Ours are those that a helper has recorded, or whoever looks after the server: a user's helper can write down nothing.
    ours = (row for row in gather(everything=True) if row.facts or row.told or row.receipt)
    rows = [row for row in ours if row.mount.mount_point == path]
    if not rows:
        raise UsageError(
            f"{options.mount_point}: nothing that a service serves is mounted there (see `fuservice list')"
        )
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
