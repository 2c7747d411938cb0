"""``fuservice listen TYPE…``: bind a socket for each type, start a caged server for each connection."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial

from fuservice.cage.plan import Profile, plan
from fuservice.drivers import catalog
from fuservice.errors import PolicyError
from fuservice.launch.activator import Activator, check_name
from fuservice.proto.layouts import SOCKET_DIRECTORY
from fuservice.service.main import service_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("listen", help="serve types without systemd", description=__doc__)
    command.add_argument("types", nargs="+", metavar="TYPE", help=f"one of {', '.join(catalog.DRIVERS)}")
    command.add_argument(
        "--socket-dir", default=SOCKET_DIRECTORY, metavar="DIR", help="where the sockets are (%(default)s)"
    )
    command.add_argument("--socket-mode", default=0o220, type=_mode, metavar="MODE",
                         help="permission bits of the sockets, octal (220)")  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="print the cage that servers would enter, and end")
    command.set_defaults(run=run)


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError(text)
    return mode


_mode.__name__ = "octal mode"  # argparse says: invalid octal mode value: '999'


def run(options: argparse.Namespace) -> None:
    """Listen until SIGTERM or SIGINT. FuserviceError where that is not possible."""
    cage = plan(Profile())
    for name in options.types:
        check_name(name)
    # All drivers are imported here: a server is forked from this process, and its cage has no files to import from.
    services = {name: partial(service_main, catalog.find(name), [name]) for name in options.types}
    if options.dry_run:
        print("\n".join(operation.describe() for operation in cage))
        return
    if os.geteuid() != 0:
        raise PolicyError(
            "listen: needs root: a server must get a user of its own, and nobody else can give it one (try sudo)"
        )
    activator = Activator(services, os.path.abspath(options.socket_dir), cage=cage, log=_log, mode=options.socket_mode)  # noqa: PTH100
    activator.run(_ready)


def _ready(paths: list[str]) -> None:
    for path in paths:
        print(f"listening on {path}", flush=True)


def _log(line: str) -> None:
    with suppress(OSError):  # whoever reads our log may have gone, and that is no reason to end
        print(line, file=sys.stderr, flush=True)
