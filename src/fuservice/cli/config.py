"""``fuservice config``: where things are, for scripts and builds. The names are those of fuservice.pc, for pkg-config(1)."""

from __future__ import annotations

from fuservice import __version__
from fuservice.errors import UsageError
from fuservice.units import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Final

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

VARIABLES: Final[Mapping[str, str]] = {
    "version": __version__,
    "service_socket_dir": places.SOCKETS,
    "service_socket_perms": f"{places.SOCKET_MODE:04o}",
    "systemd_system_unit_dir": f"/usr/{places.PACKAGED_UNITS}",
    "service_user_socket_dir": places.USER_SOCKETS,
    "service_user_socket_perms": f"{places.USER_SOCKET_MODE:04o}",
    "systemd_user_unit_dir": f"/usr/{places.PACKAGED_USER_UNITS}",
}


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("config", help="say where things are", description=__doc__)
    command.add_argument("--variable", metavar="NAME", help=f"the value of one: {', '.join(VARIABLES)}")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print all variables, or the value of one; UsageError where there is none of that name."""
    if options.variable is None:
        print(*(f"{name}={value}" for name, value in VARIABLES.items()), sep="\n")
    elif options.variable in VARIABLES:
        print(VARIABLES[options.variable])
    else:
        raise UsageError(f"config: no variable `{options.variable}': there are {', '.join(VARIABLES)}")
