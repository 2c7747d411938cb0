"""The server's own half of its cage in a unit: see that systemd has built what it was told to, and build the rest.

systemd leaves out, with a line in its log, what a container does not let it do. A server that finds less than its unit says
does not start.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from fuservice.cage import plan
from fuservice.cage.operations import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Final

#: The walls that are systemd's alone: a process without any right cannot build them, or finds itself behind them.
SYSTEMD: Final = ("user", "pid", "mount", "net", "ipc", "uts", "cgroup", "root", "capabilities")


class Found(Operation):
    """A wall that stands already."""

    __slots__ = ("_stands", "wall", "what")

    def __init__(self, wall: str, what: str, stands: Callable[[], bool]) -> None:
        self.wall, self.what, self._stands = wall, what, stands

    def describe(self) -> str:
        return f"find {self.what}"

    def execute(self) -> None:
        if not self._stands():
            raise OSError(errno.EPERM, f"systemd has not built what the unit says: the wall `{self.wall}'")


def cage(profile: plan.Profile, without: Collection[str] = ()) -> Sequence[Operation]:
    """Return what a server in a unit executes before it takes its first packet."""
    found = [one for one in FOUND if one.wall not in without]
    return (*found, *plan.plan(profile, {*SYSTEMD, *without}))


def _status() -> Mapping[str, str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _other_user() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:  # noqa: PTH123
        ranges = [list(map(int, line.split())) for line in file]
    return os.geteuid() != 0 and all(count == 1 for _, _, count in ranges)


def _no_capabilities() -> bool:
    status = _status()
    return not any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))


def _no_network() -> bool:
    """No route leads anywhere: proc_pid_net(5). Interfaces may be there that the kernel makes for each namespace."""
    with open("/proc/self/net/route", encoding="ascii") as file:  # noqa: PTH123
        routes = list(file)[1:]
    with suppress(FileNotFoundError), open("/proc/self/net/ipv6_route", encoding="ascii") as file:  # noqa: PTH123
        routes += [line for line in file if line.split()[-1] != "lo"]
    return not routes


def _own_root() -> bool:
    return not any(map(os.path.exists, ("/etc/passwd", "/var/lib", "/run/systemd/private")))


def _filtered() -> bool:
    status = _status()
    return status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"


FOUND: Final[Sequence[Found]] = (
    Found("user", "that the user is nobody else's, and no other exists", _other_user),
    Found("capabilities", "that there is no capability in any set", _no_capabilities),
    Found("net", "that there is no network", _no_network),
    Found("root", "that the root is not the machine's", _own_root),
    Found("privileges", "a filter of system calls, and that nothing gives privileges", _filtered),
)
