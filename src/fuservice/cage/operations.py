"""The operations of a cage: each can say what it does, and do it. Each binds this process, for good."""

from __future__ import annotations

import os
import resource

from fuservice.linux import capabilities, prctl


class Operation:
    """One wall. Instances are plain values: they are made without rights and compared in tests."""

    __slots__ = ()

    def describe(self) -> str:
        """Return one line for people: --dry-run and logs print it."""
        raise NotImplementedError

    def execute(self) -> None:
        """Build the wall; OSError where it cannot be built, and then the process must not go on."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and type(self) is type(other) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((type(self), self.describe()))


class NewSession(Operation):
    """No terminal: what is written to it cannot be typed into it (TIOCSTI)."""

    __slots__ = ()

    def describe(self) -> str:
        return "leave the terminal: a session of its own"

    def execute(self) -> None:
        os.setsid()


class Limit(Operation):
    """A resource limit, soft and hard (getrlimit(2))."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def describe(self) -> str:
        return f"limit {self.name} to {self.value}"

    def execute(self) -> None:
        kind = getattr(resource, f"RLIMIT_{self.name}")
        _, hard = resource.getrlimit(kind)
        value = self.value if hard == resource.RLIM_INFINITY else min(self.value, hard)  # a lower one is as good
        resource.setrlimit(kind, (value, value))


class DropBoundingSet(Operation):
    """No program that is executed can bring capabilities back. Before BecomeUser, which gives up CAP_SETPCAP."""

    __slots__ = ()

    def describe(self) -> str:
        return "empty the capability bounding set"

    def execute(self) -> None:
        capabilities.drop_bounding_set()
        capabilities.clear_ambient()


class BecomeUser(Operation):
    """Another user, without supplementary groups."""

    __slots__ = ("gid", "uid")

    def __init__(self, uid: int, gid: int) -> None:
        self.uid, self.gid = uid, gid

    def describe(self) -> str:
        return f"become uid {self.uid}, gid {self.gid}, no other groups"

    def execute(self) -> None:
        os.setgroups([])  # the groups first: afterwards there is no right to
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


class DropCapabilities(Operation):
    """Empty effective, permitted and inheritable sets."""

    __slots__ = ()

    def describe(self) -> str:
        return "drop every capability"

    def execute(self) -> None:
        capabilities.set_capabilities(0, 0, 0)


class NoNewPrivileges(Operation):
    """No execve(2) can add rights: set-user-ID bits and file capabilities count for nothing."""

    __slots__ = ()

    def describe(self) -> str:
        return "no new privileges"

    def execute(self) -> None:
        prctl.set_no_new_privs()


class NotDumpable(Operation):
    """No core file, and no ptrace or /proc/PID/fd for others of the same uid. After BecomeUser, which resets it."""

    __slots__ = ()

    def describe(self) -> str:
        return "not dumpable"

    def execute(self) -> None:
        prctl.set_dumpable(0)
