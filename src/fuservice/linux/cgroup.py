"""Which control group a process is in, and with that the unit that systemd has started it in: cgroups(7)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def unit(pid: int) -> str | None:
    """Return the name of the service that process *pid* belongs to; None where there is none, or the process has ended.

    Of services within each other it is the innermost: a user's own manager is a service too.
    """
    return next((name for name in reversed(_parts(pid)) if name.endswith(".service")), None)


def is_in_user_manager(pid: int) -> bool:
    """Return whether process *pid* is in a unit of a user's own manager (user@.service(5))."""
    return any(name.startswith("user@") for name in _parts(pid))


def _parts(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return [part for path in _paths(file) for part in path.split("/")]
    except OSError:
        return []


def _paths(lines: Iterator[str]) -> Iterator[str]:
    """Yield the paths in the hierarchies that systemd manages: the unified one, and its own of old."""
    for line in lines:
        _, controllers, path = line.rstrip("\n").split(":", 2)
        if controllers in ("", "name=systemd"):
            yield path
