"""Namespaces (namespaces(7)): new ones by unshare(2), and what they need to be of use; another process's by setns(2)."""

from __future__ import annotations

import _socket
from ctypes import c_int

from fuservice.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# linux/sched.h
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWCGROUP: Final = 0x0200_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

_unshare = libc.declare("unshare", c_int)
_setns = libc.declare("setns", c_int, c_int)


def unshare(flags: int) -> None:
    """Move the calling process, which has one thread, into new namespaces. CLONE_NEWPID moves only its next child."""
    if _unshare(flags) < 0:
        libc.fail("unshare")


def setns(pidfd: int, flags: int) -> None:
    """Move the calling process, which has one thread, into the namespaces *flags* of the process *pidfd*, all or none (Linux 5.8).

    Into a user namespace that this user has made it goes with all capabilities, but only in there. EINVAL for the own one.
    """
    if _setns(pidfd, flags) < 0:
        libc.fail("setns")


def map_own_ids(uid: int, gid: int) -> None:
    """In a new user namespace, made by user *uid* and group *gid*: be these two there, and let nobody else exist.

    The kernel lets an unprivileged process write such a map for itself, once setgroups(2) is forbidden
    (user_namespaces(7)). Needs /proc.
    """
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(text)


def set_host_name(name: str) -> None:
    """sethostname(2)."""
    _socket.sethostname(name)
