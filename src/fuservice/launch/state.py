"""/run/fuservice/servers: what a listener knows of its live servers, for ``fuservice list``. One file each, named by its pid.

Lines of ``key=value``. A file whose process is gone says nothing: readers see that by the start time in it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from fuservice.linux import mountinfo
from fuservice.linux.mountinfo import unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

LARGEST: Final = 16_384  # bytes


def directory() -> str:
    """Return where the files of this user's listeners are: below /run for root, else in XDG_RUNTIME_DIR ("" without one)."""
    if os.geteuid() == 0:
        return "/run/fuservice/servers"
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{own}/fuservice-servers" if own else ""


def start_time(pid: int) -> str:
    """Return when process *pid* began, in clock ticks since boot (proc_pid_stat(5), field 22); "" where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


class States:
    """The files of one listener. Without a directory, or with one that cannot be written to, nothing is recorded."""

    def __init__(self, where: str) -> None:
        """Make *where* if it is missing, and remove the files of servers that are gone, and their mounts with them.

        *left* are the device numbers of mounts of which only the servers are gone → why those ended, as far as that was recorded.
        """
        self._where = where
        self.left: dict[str, str] = {}
        try:
            for place in (os.path.dirname(where), where) if where else ():  # noqa: PTH120
                with suppress(FileExistsError):
                    os.mkdir(place, 0o755)  # noqa: PTH102
            for name in os.listdir(where) if where else ():
                if read(where, name) is None:
                    self._forget(name)
        except OSError:
            self._where = ""

    def _forget(self, name: str) -> None:
        facts = _facts(self._where, name)
        device = facts.get("device", "")
        if device and any(mount.device == device for mount in mountinfo.mounts()):
            self.left[device] = facts.get("why", "")
        else:
            os.unlink(f"{self._where}/{name}")  # noqa: PTH108

    def write(self, pid: int, facts: Mapping[str, str | int]) -> None:
        """Record *facts* about the live server *pid*, in the place of what was there."""
        if self._where:
            text = "".join(f"{key}={_escape(str(value))}\n" for key, value in facts.items())
            path = f"{self._where}/{pid}"
            with suppress(OSError):
                with open(f"{path}.new", "w", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
                    file.write(text)
                os.rename(f"{path}.new", path)  # noqa: PTH104 - a reader sees the old facts or the new ones

    def remove(self, pid: int) -> None:
        """Forget *pid*, which has ended."""
        if self._where:
            with suppress(OSError):
                os.unlink(f"{self._where}/{pid}")  # noqa: PTH108


def read(where: str, name: str) -> dict[str, str] | None:
    """Return the facts in the file *name*; None where it is none, or the process it is about has ended."""
    facts = _facts(where, name)
    alive = name.isascii() and name.isdigit() and facts.get("start") == (start_time(int(name)) or None)
    return facts if alive else None


def _facts(where: str, name: str) -> dict[str, str]:
    try:
        with open(f"{where}/{name}", "rb") as file:  # noqa: PTH123
            text = file.read(LARGEST)
    except OSError:
        return {}
    pairs = (line.partition(b"=") for line in text.split(b"\n") if line)
    return {os.fsdecode(key): os.fsdecode(unescape(value)) for key, _, value in pairs}


def read_all(where: str) -> dict[int, dict[str, str]]:
    """Return the facts about all live servers, by pid."""
    try:
        found = {name: read(where, name) for name in os.listdir(where)}
    except OSError:
        return {}
    return {int(name): facts for name, facts in found.items() if facts is not None}


def _escape(value: str) -> str:
    """Return *value* on one line, in the way of mountinfo: a backslash and control characters are \\NNN."""
    return "".join(f"\\{ord(c):03o}" if c in "\\\x7f" or c < " " else c for c in value)
