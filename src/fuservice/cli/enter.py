"""``fuservice enter MOUNTPOINT [-- COMMAND]``: run a command where a private mount of yours is seen."""

from __future__ import annotations

from fuservice.backends import holder
from fuservice.cli import inside, mine
from fuservice.errors import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "enter", help="run a command where a private mount is seen", description="Run a command where a private mount (mount --private) is seen.",
        usage="fuservice enter MOUNTPOINT [-- COMMAND [ARGUMENT...]]",
        epilog=f"Without COMMAND: your shell. {inside.MOUNT} is where the mount is.",
    )  # fmt: skip
    command.add_argument("mount", metavar="MOUNTPOINT", help="or its source, or its number in `fuservice list'")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it; return its status, as a shell has it. FuserviceError where there is no such mount."""
    known = mine.open_receipts()
    path = mine.find_private(options.mount, known) or mine.find(options.mount, known)
    held = holder.at(path)
    if held is None:
        raise PolicyError(f"enter: {path}: is no private mount: it is seen from here")
    return inside.execute(held, options.command)
