"""``fuservice run SOURCE [-- COMMAND]``: mount where nobody else sees it, run a command there, and leave nothing when it ends."""

from __future__ import annotations

import sys

from fuservice.cli import inside
from fuservice.cli.attempt import Attempt
from fuservice.cli.mount import add_options, check, mount_one, say
from fuservice.launch import receipts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "run", help="mount an image for one command alone", description="Mount an image where nobody else sees it, for as long as a command runs.",
        usage="fuservice run [OPTIONS] SOURCE [-- COMMAND [ARGUMENT...]]",
        epilog=f"Without COMMAND: your shell. {inside.MOUNT} is where the mount is.",
    )  # fmt: skip
    command.add_argument("source", metavar="SOURCE", help="an image or a block device")
    add_options(command)
    command.set_defaults(run=run, private=True, via=None)


def run(options: argparse.Namespace) -> int:
    """Mount, run, unmount; return the command's status, as a shell has it. FuserviceError where it could not be mounted."""
    check(options, [options.source], None)
    attempt = Attempt(options.source, options)
    failure = mount_one(attempt, None)
    if failure is not None:
        raise failure
    assert attempt.private is not None
    with attempt.private as private:
        if not options.command and sys.stdin.isatty():
            say(f"{options.source} is at {private.mount_point} ({inside.MOUNT}) until this shell ends")
        code = inside.execute(private.held(), options.command)
        if private.holder.is_over():
            way_out = f"fuservice why {attempt.receipt or options.source}"
            say(f"{options.source}: the mount was over before the command was: {way_out}")
        elif attempt.receipt is not None:
            receipts.ended(attempt.receipt, "unmounted: the command that it was mounted for has ended")
    return code
