"""Which control group a process is in, and with that the unit that systemd has started it in: cgroups(7)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def unit(pid: int) -> str | None:
    """Return the name of the service that process *pid* belongs to; None where there is none, or the process has ended."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            names = [part for path in _paths(file) for part in path.split("/")]
    except OSError:
        return None
    return next((name for name in names if name.endswith(".service")), None)


def _paths(lines: Iterator[str]) -> Iterator[str]:
    """Yield the paths in the hierarchies that systemd manages: the unified one, and its own of old."""
    for line in lines:
        _, controllers, path = line.rstrip("\n").split(":", 2)
        if controllers in ("", "name=systemd"):
            yield path
