"""Why a service did not serve, as far as the journal knows, and where to read on. Asked only once it has failed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

from fuservice.cli import systemd
from fuservice.errors import RemoteProtocolError, printable
from fuservice.linux.holders import listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    Entry = dict[str, str]

SYSTEM, USER = "--unit", "--user-unit"  # how journalctl(1) is told of a unit, of the system's manager or the user's own
PATIENCE: Final = 1.0  # seconds for systemd to see the end of a server, and for the journal to hear of it
LONGEST_ANSWER: Final = 5.0  # seconds that a program of systemd's may take
#: SD_MESSAGE_UNIT_PROCESS_EXIT and SD_MESSAGE_UNIT_SUCCESS, systemd/sd-messages.h: of those that fail, and of others.
_ENDS: Final = ("98e322203f7a4ed290d09fe03c09fe15", "7ad2d189f7e94e70a38c781354912448")
_LABEL: Final = re.compile(r"^\S+\[\d+\](?: on .*?)?: ")  # before what a server says (launch/server.py)
_SAID_WHY: Final = "server ended with exit status"  # so it has ended by itself, and its last words are the reason


def explain(error: RemoteProtocolError, path: str) -> RemoteProtocolError:
    """Return *error* of a conversation at socket *path*, with how the server ended and where its words are, if that is known."""
    how, where = "", ""
    if (found := _socket_unit(path)) is not None:
        how, where = _of_unit(*found)
    elif pid := _our_listener(path):
        where = f"the log of `fuservice listen' (process {pid})"
    return _with(error, how, where) if where else error


def explain_unit(error: RemoteProtocolError, unit: str, *, of_user: bool, starter: int) -> RemoteProtocolError:
    """Return *error* of a conversation with a server in *unit*, of the user's own manager or the system's, in the same way.

    Where there was no such unit, the process *starter* of this boot has said why, by the name of its type.
    """
    option, identifier = USER if of_user else SYSTEM, unit.rpartition("-")[0]
    ended, entries = end_of(option, unit)
    said = [one["MESSAGE"] for one in _journal("--identifier", identifier) if one.get("_PID") == str(starter)]
    if said and not entries:
        return RemoteProtocolError(f"{error}: {printable(said[-1])}")
    return _with(error, ended, f"journalctl {option} {unit}")


def _with(error: RemoteProtocolError, how: str, where: str) -> RemoteProtocolError:
    words = [str(error).rstrip(".!"), *([printable(how)] if how else [])]
    return RemoteProtocolError(f"{': '.join(words)}, see {where}")


def _our_listener(path: str) -> int | None:
    """Return the process of a `fuservice listen` at *path*; None where there is none that we can see."""
    for pid in listeners(path):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
                words = [os.path.basename(word) for word in file.read().split(b"\0")]  # noqa: PTH119
        except OSError:
            continue
        if b"fuservice" in words and b"listen" in words:
            return pid
    return None


def _socket_unit(path: str) -> tuple[list[str], str] | None:
    """Return the manager, as systemctl(1) is told of it, that listens at *path*, and its unit; None where none does."""
    for manager in ([], ["--user"]) if systemd.runs() else ():
        try:
            for socket in json.loads(_answer("systemctl", *manager, "list-sockets", "--output=json") or "[]"):
                if socket["listen"] == path:
                    return manager, socket["unit"]
        except (ValueError, KeyError, TypeError):  # not what systemctl(1) says
            continue
    return None


def _of_unit(manager: Sequence[str], socket: str) -> tuple[str, str]:
    """Return how the server ended that systemd had started for us ("": nobody knows), and what shows all that was said."""
    option = USER if manager else SYSTEM
    # An instance is named after who connected: systemd.socket(5).
    pattern = f"{socket.removesuffix('.socket')}@*-{os.getpid()}-{os.getuid()}.service"
    ended, entries = end_of(option, pattern)
    if entries:
        return ended, f"journalctl {option} {unit(entries[-1])}"
    return refused(_journal(option, socket)).removeprefix(f"{socket}: "), f"journalctl {option} {socket}"


def end_of(option: str, pattern: str) -> tuple[str, list[Entry]]:
    """Wait until the journal tells of the end of a unit, but not for long; return what it tells, and all that it has."""
    deadline = time.monotonic() + PATIENCE
    while not (ended := how_it_ended(entries := _journal(option, pattern))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return ended, entries


def _journal(option: str, name: str) -> list[Entry]:
    """Return what the journal has of units, the last lines of it; [] where it has nothing for us."""
    said = _answer("journalctl", "--quiet", "--no-pager", "--output=json", "--lines=50", f"{option}={name}")
    try:
        entries = [json.loads(line) for line in said.splitlines()]
    except ValueError:
        return []
    return [entry for entry in entries if isinstance(entry.get("MESSAGE"), str)]  # others are no text


def _answer(*command: str) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=LONGEST_ANSWER, check=False)  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return done.stdout


def unit(entry: Entry) -> str:
    """Return the unit that *entry* is of, or about."""
    return next(
        (entry[key] for key in ("UNIT", "USER_UNIT", "_SYSTEMD_USER_UNIT", "_SYSTEMD_UNIT") if key in entry), ""
    )


def how_it_ended(entries: Sequence[Entry]) -> str:
    """Return what the server of the last unit in *entries* said before its end, or how systemd saw that; "" if it has not ended."""
    last = [entry for entry in entries if unit(entry) == unit(entries[-1])]
    told = [_LABEL.sub("", entry["MESSAGE"]) for entry in last if "UNIT" not in entry and "USER_UNIT" not in entry]
    seen = [entry["MESSAGE"].partition(": ")[2] for entry in last if entry.get("MESSAGE_ID") in _ENDS]
    if not seen and not any(text.startswith("server ended with") for text in told):
        return ""
    killed = [text for text in told if text.startswith("killed: ")]
    why = killed or [text for text in told if not text.startswith(_SAID_WHY)] or told or seen
    return why[-1]


def refused(entries: Sequence[Entry]) -> str:
    """Return what systemd has last complained of in *entries*; "" if of nothing."""
    return next((entry["MESSAGE"] for entry in reversed(entries) if entry.get("PRIORITY", "6") < "5"), "")
