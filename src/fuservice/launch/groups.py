"""Control groups (cgroups(7), version 2): budgets that a process cannot leave, where systemd has given us a group to divide.

``Delegate=yes`` in a unit marks its group as the service's own to divide; in any other we change nothing. Memory beyond its limit ends the
server; the limits of its cage (setrlimit(2)) hold everywhere, and bound what each mapping may add.
"""

from __future__ import annotations

import os
from contextlib import suppress

from fuservice.cage.profile import MOST_THREADS
from fuservice.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from fuservice.linux.mountinfo import Mount

MARKS: Final = ("user.delegate", "trusted.delegate")  # extended attributes: systemd's CGROUP_DELEGATION
#: Controller → what is written for each server. A server is one process, with its threads; memory is that of its cage, with its page tables.
BUDGETS: Final = {
    "memory": {"memory.max": "1280M", "memory.swap.max": "0", "memory.oom.group": "1"},
    "pids": {"pids.max": str(1 + MOST_THREADS)},
    "cpu": {"cpu.weight": "50"},  # half of what others have who want the processor too
}
OWN: Final = "listener"  # the group of the listener and its warm processes: one with groups below may hold no process


def delegated(own: str = "/proc/self/cgroup") -> str | None:
    """Return the directory of the control group that we are in, if it is ours to divide; None otherwise."""
    with open(own, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        paths = [line.rstrip("\n").split(":", 2)[2] for line in file if line.startswith("0::")]
    place = _place(paths[0], mountinfo.mounts()) if paths else None
    return place if place is not None and any(_mark(place, mark) == b"1" for mark in MARKS) else None


def _place(path: str, mounts: Iterable[Mount]) -> str | None:
    """Return where the control group *path* is, among *mounts*."""
    for mount in mounts:
        root = mount.root.rstrip("/")
        if mount.fstype == "cgroup2" and f"{path}/".startswith(f"{root}/"):
            return mount.mount_point + path[len(root) :].rstrip("/")
    return None


def _mark(place: str, mark: str) -> bytes:
    try:
        return os.getxattr(place, mark)
    except OSError:
        return b""


class Groups:
    """A group for each server, below the one that was delegated to us."""

    def __init__(self, directory: str) -> None:
        """Move to a group of our own in *directory*, which then may have groups with budgets; OSError where that fails."""
        self._directory = directory
        _make(f"{directory}/{OWN}")
        _write(f"{directory}/{OWN}/cgroup.procs", "0")
        with open(f"{directory}/cgroup.controllers", encoding="ascii") as file:  # noqa: PTH123
            there = file.read().split()
        self.controllers = [name for name in BUDGETS if name in there]
        for name in self.controllers:
            _write(f"{directory}/cgroup.subtree_control", f"+{name}")

    def add(self, pid: int) -> None:
        """Put server *pid* into a group with budgets; OSError where that fails: it should not live then."""
        group = f"{self._directory}/server-{pid}"
        _make(group)
        for name in self.controllers:
            for file, value in BUDGETS[name].items():
                if os.path.exists(f"{group}/{file}"):  # noqa: PTH110 - swap may not be accounted
                    _write(f"{group}/{file}", value)
        _write(f"{group}/cgroup.procs", str(pid))

    def remove(self, pid: int) -> None:
        """Remove the group of *pid*, which has ended and was reaped."""
        with suppress(OSError):
            os.rmdir(f"{self._directory}/server-{pid}")  # noqa: PTH106


def _make(group: str) -> None:
    with suppress(FileExistsError):  # of a listener that was killed
        os.mkdir(group)  # noqa: PTH102


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(text)
