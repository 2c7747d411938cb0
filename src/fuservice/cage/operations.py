"""What an operation of a cage is, and those on an ordinary process: session, limits, descriptors. Each binds for good."""

from __future__ import annotations

import os
import resource
import signal

from fuservice.linux import prctl, threads
from fuservice.linux.fds import Fd

LAST_DESCRIPTOR = (1 << 31) - 1


class Operation:
    """One step. Instances are plain values: they are made without rights and compared in tests."""

    __slots__ = ()
    wall = ""  #: the name of the wall that it belongs to
    clone_flags = 0  #: what must have been given to clone(2) for it

    def describe(self) -> str:
        """Return one line for people: --dry-run and logs print it."""
        raise NotImplementedError

    def execute(self) -> None:
        """Do it; OSError where it cannot be done, and then the process must not go on."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and type(self) is type(other) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((type(self), self.describe()))


class NewSession(Operation):
    """No terminal: what is written to it cannot be typed into it (TIOCSTI)."""

    __slots__ = ()
    wall = "session"

    def describe(self) -> str:
        return "leave the terminal: a session of its own"

    def execute(self) -> None:
        os.setsid()


class Limit(Operation):
    """A resource limit, soft and hard (getrlimit(2))."""

    __slots__ = ("name", "value")
    wall = "limits"

    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def describe(self) -> str:
        return f"limit {self.name} to {self.value}"

    def execute(self) -> None:
        kind = getattr(resource, f"RLIMIT_{self.name}")
        _, hard = resource.getrlimit(kind)
        value = self.value if hard == resource.RLIM_INFINITY else min(self.value, hard)  # a lower one is as good
        resource.setrlimit(kind, (value, value))


class OomScore(Operation):
    """Where memory runs out, the kernel takes a server first (proc_pid_oom_score_adj(5)). Needs /proc."""

    __slots__ = ("score",)
    wall = "limits"

    def __init__(self, score: int) -> None:
        self.score = score

    def describe(self) -> str:
        return f"be the first to go where memory runs out: oom_score_adj at least {self.score}"

    def execute(self) -> None:
        with Fd(os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)) as file:
            if int(os.read(file.fileno(), 16)) < self.score:  # only root may lower it
                os.write(file.fileno(), str(self.score).encode())


class Umask(Operation):
    """What it could create would be its own alone."""

    __slots__ = ()
    wall = "limits"

    def describe(self) -> str:
        return "umask 077"

    def execute(self) -> None:
        os.umask(0o077)


class SpareThreads(Operation):
    """All the threads there will ever be. Behind the walls that are built for one thread alone; the filter covers all."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def describe(self) -> str:
        return f"start {self.count} threads, to serve while others wait for the image: there can be no more"

    def execute(self) -> None:
        threads.start(self.count)


class CloseDescriptors(Operation):
    """Nothing of the starter's is open."""

    __slots__ = ("keep",)
    wall = "descriptors"

    def __init__(self, keep: int) -> None:
        """Keep the descriptors from 0 to *keep* - 1."""
        self.keep = keep

    def describe(self) -> str:
        return f"close every descriptor from {self.keep} on"

    def execute(self) -> None:
        os.closerange(self.keep, LAST_DESCRIPTOR)


class NotDumpable(Operation):
    """No core file, and no ptrace or /proc/PID/fd for others of the same uid. After the change of user, which resets it."""

    __slots__ = ()
    wall = "dumpable"

    def describe(self) -> str:
        return "not dumpable"

    def execute(self) -> None:
        prctl.set_dumpable(0)


class DieWithParent(Operation):
    """Nobody is left without a supervisor. After the change of user, which clears it.

    A parent that had died before is found out when the filter's listener is handed over: there is nobody to take it.
    """

    __slots__ = ()
    wall = "parent"

    def describe(self) -> str:
        return "be killed when the supervisor ends"

    def execute(self) -> None:
        prctl.set_parent_death_signal(signal.SIGKILL)
