"""``fuservice list``: the mounts that services made, with the processes that serve them.

The kernel says what is mounted (mountinfo) and who serves it (fdinfo); our records say the rest. Nothing here looks into a
mount, so a server that hangs cannot hang it.
"""

from __future__ import annotations

import json
import re
import time

from fuservice.cli import records
from fuservice.helper.record import namespace
from fuservice.launch import state
from fuservice.linux import mountinfo
from fuservice.linux.cgroup import unit
from fuservice.linux.servers import connection_number, servers
from fuservice.linux.statmount import mount_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from fuservice.linux.servers import Server

    Cell: TypeAlias = str | int | dict[str, dict[str, int]] | None

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COLUMNS = ("mount point", "source", "type", "driver", "uid", "pid", "cage", "since", "read")
_BUDGET = "status.budget_"  # how the listener's records call what service/main.py tells


class Row:
    """One mount."""

    def __init__(
        self, mount: mountinfo.Mount, facts: dict[str, str] | None, server: Server | None, told: Mapping[str, str]
    ) -> None:
        """*facts* are what our record of the mount says, *told* what the listener's of the server does."""
        self.mount, self.facts, self.server, self.told = mount, facts or {}, server, told

    def as_json(self) -> dict[str, Cell]:
        """Return the row with full precision: "since" in seconds since 1970, "read" in bytes; null where it is not known."""
        since, server = self.facts.get("since", ""), self.server
        return {
            "mount point": self.mount.mount_point, "source": self.mount.source, "type": self.mount.fstype.partition(".")[2] or None,
            "driver": server.name if server else None, "uid": server.uid if server else None, "pid": server.pid if server else None,
            "cage": self._cage(),
            "since": int(since) if since.isdigit() else None, "read": server.read_bytes if server else None,
            "options": f"{self.mount.mount_options},{self.mount.super_options}", "socket": self.facts.get("socket"),
            "unit": unit(server.pid) if server else None, "budgets": budgets(self.told),
        }  # fmt: skip

    def _cage(self) -> str | None:
        """Return what its starter has recorded of its cage, or who has built it."""
        kind = self.mount.fstype.partition(".")[2]
        name = unit(self.server.pid) if self.server else None
        in_unit = name and re.fullmatch(rf"fuservice-{re.escape(kind)}(@.*|-[0-9a-f]{{16}})\.service", name)
        return self.told.get("cage") or ("systemd" if in_unit else None)

    def as_words(self) -> list[str]:
        """Return the row for people."""
        row = self.as_json()
        since = row["since"]
        words = {
            **row,
            "since": time.strftime("%Y-%m-%d %H:%M", time.localtime(since)) if isinstance(since, int) else None,
        }
        return [printable(words[column]) for column in COLUMNS]


def budgets(told: Mapping[str, str]) -> dict[str, dict[str, int]] | None:
    """Return limit, peak and overruns of each budget that a server *told* of; None if none. What are no numbers is passed over."""
    found = {}
    for key, value in told.items():
        words = value.split("/")
        if (
            key.startswith(_BUDGET)
            and len(words) == 3
            and all(w.isascii() and w.isdigit() and len(w) < 20 for w in words)
        ):
            peak, limit, overruns = map(int, words)
            found[key.removeprefix(_BUDGET)] = {"limit": limit, "peak": peak, "overruns": overruns}
    return found or None


def printable(value: Cell) -> str:
    """Return *value* for a table: "-" where it is not known, and nothing that could move the cursor."""
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("list", help="show what is mounted", description=__doc__)
    command.add_argument("--json", action="store_true", help="print JSON: a list of objects")
    command.add_argument(
        "--all", action="store_true", help="show all FUSE mounts, not only those that we have a record of"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the mounts."""
    rows = gather(everything=options.all)
    if options.json:
        print(json.dumps([row.as_json() for row in rows], indent=2))
    else:
        print("\n".join(table([list(COLUMNS), *(row.as_words() for row in rows)])) if rows else "nothing is mounted")


def gather(*, everything: bool = False) -> list[Row]:
    """Return the FUSE mounts of this mount namespace that we have a record of, or *everything*; forget records of dead ones."""
    known, serving, told = recorded(), servers(), state.read_all(state.directory())
    rows = []
    for mount in mountinfo.mounts():
        facts = known.get(mount.mount_id)
        if mount.fstype.partition(".")[0] in ("fuse", "fuseblk") and (facts is not None or everything):
            server = serving.get(connection_number(mount.device))
            rows.append(Row(mount, facts, server, told.get(server.pid, {}) if server else {}))
    return rows


def recorded() -> dict[int, dict[str, str]]:
    """Return the records by the ids that mountinfo shows. By id and not by path, since mounts may lie on each other."""
    known = {}
    for unique_id, facts in records.read().items():
        try:
            known[mount_id(unique_id)] = facts
        except FileNotFoundError:
            if facts.get("namespace") == namespace():  # what another one holds, we do not see
                records.remove(unique_id)
        except OSError:
            continue
    return known


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return *rows* as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
