"""``fuservice serve TYPE``: one caged server, for the connection that this process was started with."""

from __future__ import annotations

import os
from functools import partial

from fuservice.cli import contained
from fuservice.cli.afterwards import tidy
from fuservice.drivers import catalog
from fuservice.errors import FuserviceError
from fuservice.launch import state
from fuservice.launch.keeper import WARNING
from fuservice.launch.places import check_name
from fuservice.launch.single import serve_one
from fuservice.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from fuservice.launch.child import Contained

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    words = "The connection is what systemd passes (Accept=yes), else standard input, as inetd has it."
    command = commands.add_parser("serve", help="serve one connection: for systemd and inetd",
                                  description=__doc__, epilog=words)  # fmt: skip
    command.add_argument("type", metavar="TYPE", help=f"one of {', '.join(catalog.DRIVERS)}")
    contained.add_options(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Serve until the mount is gone. FuserviceError where there is no connection, or the server did not end well."""
    # A listener has this module too, but nothing of what servers are made of.
    from fuservice.cli.warm import load

    check_name(options.type)
    without = contained.prepare(options)
    serve(options.type, load(options.type), without)


def serve(name: str, what: Contained, without: Collection[str] = ()) -> None:
    """Have *what* serve type *name*, as run() does, in a cage *without* some walls."""
    from fuservice.service.handover import connected_socket

    connection = connected_socket(os.environ) or contained.standard_input()
    facts, log = {"cage": contained.cage_word(without)}, contained.Log()
    states = state.States(state.directory())
    server = serve_one(name, connection, what, without=without, facts=facts, states=states, log=log)
    if server.why and server.device and all(mount.device != server.device for mount in mountinfo.mounts()):
        # We do not see it: somebody else may, whom systemd starts (cli/tidied.py), or the user's next listener.
        states.write(server.pid, {"start": "ended", "device": server.device, "why": server.why})
    elif server.device:
        tidy(server.device, server.why, partial(log, WARNING))
    if server.why:
        raise FuserviceError(f"serve: the server of {name} did not end well")
