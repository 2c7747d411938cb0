"""Who else lives in our mount namespace. Whoever stays in one keeps it alive, and with it all that is mounted there.

A mount in a namespace of its own shall end with it, so whoever looks after a mount from inside has to know when everybody
else has left. Whether a process lives here is seen by plain users too: the ids of mounts are unique, each mount is in one
namespace, and everybody may read everybody's mountinfo.
"""

from __future__ import annotations

import os

from fuservice.linux import mountinfo
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


def is_kept() -> bool:
    """Say whether our mount namespace lives on without any process that we could watch, or we cannot know.

    Process 1 is in it; or it is mounted as a file (unshare --mount=FILE); or we are not shown process 1, and so perhaps
    not others either (proc(5), hidepid).
    """
    own, first = _mountinfo("self"), _mountinfo("1")
    if not own or not first or _ids(own) & _ids(first):
        return True
    try:
        name = f"mnt:[{os.stat('/proc/self/ns/mnt').st_ino}]"  # noqa: PTH116
    except OSError:
        return True
    return any(
        mount.fstype == "nsfs" and mount.root == name for text in (own, first) for mount in mountinfo.parse(text)
    )


def witness(unlike: Collection[str]) -> Fd | None:
    """Return a pidfd of the oldest other process that lives here, which the caller owns; None where there is none.

    Those of our own user whose names (proc_pid_comm(5)) are in *unlike* do not count.
    """
    own = _ids(_mountinfo("self"))
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            found = Fd(os.pidfd_open(pid))
        except OSError:
            continue  # it has ended
        if pid != os.getpid() and own & _ids(_mountinfo(str(pid))) and not _is_one_of_us(pid, unlike):
            return found
        found.close()
    return None


def _mountinfo(pid: str) -> bytes:
    """Return what process *pid* sees mounted; nothing where it has ended, or we may not know."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""


def _ids(text: bytes) -> set[bytes]:
    """Return the ids of the mounts in *text*: only these, since each process of the machine may be asked for them."""
    return {line.partition(b" ")[0] for line in text.split(b"\n") if line}


def _is_one_of_us(pid: int, names: Collection[str]) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return True  # it has ended
    return status["Name"] in names and status["Uid"].split()[1] == str(os.geteuid())
