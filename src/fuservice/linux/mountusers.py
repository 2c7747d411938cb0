"""Who uses a mount, as far as we may look: open files, working directories and roots of processes (proc_pid_fdinfo(5))."""

from __future__ import annotations

import os

from fuservice.linux import statx
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def users(mount_id: int) -> list[str]:
    """Return "name[pid]" of each process, but ourselves, that has something of the mount open. Asks no filesystem."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [f"{_name(pid)}[{pid}]" for pid in pids if pid != os.getpid() and mount_id in _mounts(pid)]


def _mounts(pid: int) -> Iterator[int]:
    """Yield the ids of mounts that process *pid* uses; none of one that ended, or that is not ours to look into."""
    for link in ("cwd", "root"):
        try:
            # Not stat(2): it would ask the filesystem. O_PATH asks nobody.
            with Fd(os.open(f"/proc/{pid}/{link}", os.O_PATH | os.O_CLOEXEC)) as place:
                yield statx.mount_id(place.fileno())
        except OSError:
            continue
    try:
        numbers = os.listdir(f"/proc/{pid}/fdinfo")
    except OSError:
        return
    for number in numbers:
        try:
            with open(f"/proc/{pid}/fdinfo/{number}", "rb") as info:  # noqa: PTH123
                yield from (int(line.split()[1]) for line in info if line.startswith(b"mnt_id:"))
        except OSError:
            continue


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return "?"
