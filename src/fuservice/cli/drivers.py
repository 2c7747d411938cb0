"""``fuservice drivers``: the types that can be mounted here, who serves each, and what it can."""

from __future__ import annotations

import json
import os

from fuservice import __version__
from fuservice.cli import runtime, show
from fuservice.drivers import catalog
from fuservice.helper import manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import TypeAlias

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

    Cell: TypeAlias = str | bool | dict[str, str] | None

COLUMNS = ("type", "driver", "version", "access", "service")


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("drivers", help="show which types can be mounted", description=__doc__)
    command.add_argument(
        "--json", action="store_true", help="print JSON: a list of objects, with each driver's options"
    )
    command.add_argument("--plain", action="store_true", help="print sentences: no table")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the types."""
    rows = gather()
    if options.json:
        print(json.dumps(rows, indent=2))
    elif show.wants_sentences(plain=options.plain):
        print(*map(_sentence, rows), sep="\n")
    else:
        print(*show.lines(COLUMNS, ([row[column] for column in COLUMNS] for row in rows)), sep="\n")


def gather() -> list[dict[str, Cell]]:
    """Return a row for each type: ours, and those for which a service listens."""
    kinds = [*catalog.DRIVERS, *(kind for kind in _sockets() if kind not in catalog.DRIVERS)]
    return [_row(kind) for kind in kinds]


def _row(kind: str) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "type": kind,
        "driver": None,
        "version": None,
        "access": None,
        "service": runtime.listening(kind),
        "options": None,
    }
    if kind in catalog.DRIVERS:
        driver = catalog.find(kind)
        row |= {"driver": driver.name, "version": __version__, "options": dict(driver.options)}
        row["access"] = "read" if driver.read_only or manifest.load(kind).read_only else "read and write"
    return row


def _sentence(row: dict[str, Cell]) -> str:
    words = [
        f"Type {row['type']}: served by "
        + (f"our driver {row['driver']} {row['version']}" if row["driver"] else "a service of somebody else's")
    ]
    words += [f"for {row['access']}ing" if row["access"] == "read" else f"to {row['access']}"] if row["access"] else []
    words += (
        [f"a service listens at {row['service']}"]
        if row["service"]
        else ["no service listens: a server is started for each mount"]
    )
    return show.printable(f"{', '.join(words)}.")


def _sockets() -> list[str]:
    """Return the types for which the caller may ask a service."""
    names: list[str] = []
    for directory in runtime.socket_directories():
        try:
            names += sorted(os.listdir(directory))
        except OSError:
            continue
    return [name for name in dict.fromkeys(names) if runtime.listening(name)]
