"""``fuservice list``: the mounts that services made, with the processes that serve them.

The kernel says what is mounted (mountinfo) and who serves it (fdinfo); our records say the rest. Nothing here looks into a
mount, so a server that hangs cannot hang it.
"""

from __future__ import annotations

import json
import re
import time

from fuservice.backends import holder
from fuservice.cli import mine, records, show
from fuservice.helper.record import namespace
from fuservice.launch import state
from fuservice.linux import mountinfo
from fuservice.linux.cgroup import unit
from fuservice.linux.servers import Server, connection_number, servers
from fuservice.linux.statmount import mount_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import TypeAlias

    from fuservice.launch.receipts import Facts

    Cell: TypeAlias = str | int | dict[str, dict[str, int]] | None

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COLUMNS = ("id", "mount point", "source", "type", "driver", "uid", "pid", "cage", "since", "read")
_BUDGET = "status.budget_"  # how the listener's records call what service/main.py tells


class Row:
    """One mount."""

    def __init__(
        self, mount: mountinfo.Mount, facts: dict[str, str] | None, server: Server | None, told: Mapping[str, str],
        receipt: Facts | None = None,
    ) -> None:  # fmt: skip
        """*facts* are what our record of the mount says, *told* what the listener's of the server does; *receipt* is the caller's."""
        self.mount, self.facts, self.server, self.told = mount, facts or {}, server, told
        self.receipt = receipt or {}

    def as_json(self) -> dict[str, Cell]:
        """Return the row with full precision: "since" in seconds since 1970, "read" in bytes; null where it is not known."""
        server, number, backend = self.server, self.receipt.get("id"), self.receipt.get("back end")
        return {
            "id": number if isinstance(number, int) else None,
            "mount point": self.mount.mount_point, "source": self._source(), "type": self.mount.fstype.partition(".")[2] or None,
            "driver": server.name if server else None, "uid": server.uid if server else None, "pid": server.pid if server else None,
            "cage": self._cage(), "since": self._since(), "read": server.read_bytes if server else None,
            "options": f"{self.mount.mount_options},{self.mount.super_options}", "socket": self.facts.get("socket"),
            "unit": unit(server.pid) if server else None, "budgets": budgets(self.told),
            "back end": backend if isinstance(backend, str) else None, "private": mine.is_private(self.receipt),
        }  # fmt: skip

    def _source(self) -> str:
        """Return what was mounted: mountinfo shows no path that could forge a line of it, the receipt does."""
        path = self.receipt.get("path")
        return path if isinstance(path, str) else self.mount.source

    def _since(self) -> int | None:
        since, mounted = self.facts.get("since", ""), self.receipt.get("mounted")
        if since.isdigit():
            return int(since)
        return int(mounted) if isinstance(mounted, int | float) else None

    def _cage(self) -> str | None:
        """Return what its starter has recorded of its cage, or who has built it."""
        kind = self.mount.fstype.partition(".")[2]
        name = unit(self.server.pid) if self.server else None
        in_unit = name and re.fullmatch(rf"fuservice-{re.escape(kind)}(@.*|-[0-9a-f]{{16}})\.service", name)
        return self.told.get("cage") or ("systemd" if in_unit else None)

    def as_words(self) -> list[Cell]:
        """Return the row for people."""
        row = self.as_json() | {"since": self._when()}
        return [row[column] for column in COLUMNS]

    def _when(self) -> str | None:
        since = self._since()
        return None if since is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(since))

    def as_sentence(self) -> str:
        """Return the row for those to whom it is read."""
        row = self.as_json()
        words = [f"{row['source']} is mounted on {row['mount point']}"]
        words += [f"of type {row['type']}"] if row["type"] else []
        words += [f"since {self._when()}"] if self._since() is not None else []
        words += ["in a namespace of its own"] if row["private"] else []
        words.append(f"served by process {row['pid']}" if row["pid"] else "and who serves it is not seen from here")
        number = f"Mount {row['id']}: " if row["id"] else ""
        return show.printable(f"{number}{', '.join(words)}.")


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


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("list", help="show what is mounted", description=__doc__)
    command.add_argument("--json", action="store_true", help="print JSON: a list of objects")
    command.add_argument(
        "--all", action="store_true", help="show all FUSE mounts, not only those that we have a record of"
    )
    command.add_argument("--plain", action="store_true", help="print sentences: no table")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the mounts."""
    rows = gather(everything=options.all)
    if options.json:
        print(json.dumps([row.as_json() for row in rows], indent=2))
    elif not rows:
        print("nothing is mounted")
    elif show.wants_sentences(plain=options.plain):
        print(*(row.as_sentence() for row in rows), sep="\n")
    else:
        print(*show.lines(COLUMNS, (row.as_words() for row in rows)), sep="\n")


def gather(*, everything: bool = False) -> list[Row]:
    """Return the FUSE mounts of this mount namespace that we have a record of, or *everything*; forget records of dead ones."""
    known, serving, told = recorded(), servers(), state.read_all(state.directory())
    receipts, rows = mine.open_receipts(), []
    for mount in mountinfo.mounts():
        if not mine.is_fuse(mount):
            continue
        facts, number = known.get(mount.mount_id), mine.receipt_of(mount, receipts)
        if facts is not None or number is not None or everything:
            server = _server_of(mount.device, serving, told)
            told_of_it = told.get(server.pid, {}) if server else {}
            rows.append(Row(mount, facts, server, told_of_it, None if number is None else receipts[number]))
    return rows + [
        _private(held, there, receipts, serving, told)
        for held in holder.holders()
        if (there := held.mount()) is not None
    ]


def _private(
    held: holder.Held, mount: mountinfo.Mount, receipts: Mapping[int, Facts], serving: Mapping[int, Server],
    told: Mapping[int, Mapping[str, str]],
) -> Row:  # fmt: skip
    """Return the row of a mount that only its own namespace has."""
    receipt = next((facts for facts in receipts.values() if mine.is_private(facts) and mine.is_about(facts, mount)), {})
    server = _server_of(mount.device, serving, told)
    return Row(mount, None, server, {}, {"back end": "namespace", **receipt, "holder": held.pid})


def _server_of(device: str, serving: Mapping[int, Server], told: Mapping[int, Mapping[str, str]]) -> Server | None:
    """Return who serves the connection *device*: who holds the fuse device, or else whom who looks after them has recorded.

    A plain user sees no descriptors in the cage.
    """
    pid = next((pid for pid, facts in told.items() if facts.get("device") == device), None)
    try:
        return serving.get(connection_number(device)) if pid is None else Server(pid)
    except OSError:
        return None


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
