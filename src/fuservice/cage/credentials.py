"""Who a caged process is, and what it may: user, capabilities, no new privileges."""

from __future__ import annotations

import os

from fuservice.cage.operations import Operation
from fuservice.linux import capabilities, namespaces, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Instances of a root starter have uids from here to FIRST_UID + 2^22: pids end there (PID_MAX_LIMIT, linux/threads.h).
#: Nobody hands these out: not systemd (UIDS-GIDS), whose containers end at 1,879,048,191, not SSSD and FreeIPA, which end
#: at 2,000,200,000; and all are below 2^31.
FIRST_UID: Final = 2_100_000_000


class UserNamespace(Operation):
    """A plain user's way to the other walls: its own ids and nobody else's, and all capabilities, but only in there.

    Supplementary groups stay: whoever maps his own ids must give up setgroups(2) first (user_namespaces(7)).
    """

    __slots__ = ("gid", "uid")
    wall = "user"
    clone_flags = namespaces.CLONE_NEWUSER

    def __init__(self, uid: int, gid: int) -> None:
        self.uid, self.gid = uid, gid

    def describe(self) -> str:
        return f"a user namespace, where only uid {self.uid} and gid {self.gid} exist"

    def execute(self) -> None:
        namespaces.map_own_ids(self.uid, self.gid)


class _ChangeUser(Operation):
    """Another user. Capabilities stay, for the operations to come: dropping them is a wall of its own."""

    __slots__ = ()
    wall = "user"

    def become(self, uid: int, gid: int) -> None:
        """Change all ids, without supplementary groups; the effective and permitted sets are what they were."""
        held, permitted, inheritable = capabilities.capabilities()
        capabilities.keep_when_changing_user()
        os.setgroups([])  # the groups first: afterwards there may be no right to
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        capabilities.set_capabilities(held, permitted, inheritable)


class BecomeUser(_ChangeUser):
    """A user that somebody has chosen."""

    __slots__ = ("gid", "uid")

    def __init__(self, uid: int, gid: int) -> None:
        self.uid, self.gid = uid, gid

    def describe(self) -> str:
        return f"become uid {self.uid}, gid {self.gid}, no other groups"

    def execute(self) -> None:
        self.become(self.uid, self.gid)


class BecomeOwnUser(_ChangeUser):
    """A user of this process alone: no two live processes have one number, so no two have one of these uids.

    The kernel keeps the books: there is no file to lock, none to tidy up, and nothing for two listeners to agree upon. The
    number is the one in the starter's pid namespace, whose /proc is still there.
    """

    __slots__ = ("first",)

    def __init__(self, first: int) -> None:
        self.first = first

    def describe(self) -> str:
        return f"become a user that nobody else is: uid and gid {self.first} + process number, no other groups"

    def execute(self) -> None:
        own = self.first + int(os.readlink("/proc/self"))  # noqa: PTH115
        self.become(own, own)


class DropBoundingSet(Operation):
    """No program that is executed can bring capabilities back, nor can uid 0."""

    __slots__ = ()
    wall = "capabilities"

    def describe(self) -> str:
        return "empty the capability bounding and ambient sets, lock the securebits"

    def execute(self) -> None:
        capabilities.drop_bounding_set()
        capabilities.clear_ambient()
        capabilities.lock_securebits()


class DropCapabilities(Operation):
    """Empty effective, permitted and inheritable sets. After all that needs one."""

    __slots__ = ()
    wall = "capabilities"

    def describe(self) -> str:
        return "drop every capability"

    def execute(self) -> None:
        capabilities.set_capabilities(0, 0, 0)


class NoNewPrivileges(Operation):
    """No execve(2) can add rights: set-user-ID bits and file capabilities count for nothing."""

    __slots__ = ()
    wall = "privileges"

    def describe(self) -> str:
        return "no new privileges"

    def execute(self) -> None:
        prctl.set_no_new_privs()
