"""From a profile to the list of operations, in the order in which they can be executed. Pure: nothing is asked of the system."""

from __future__ import annotations

from fuservice.cage import credentials, filters, interpreter, spaces
from fuservice.cage import operations as ops
from fuservice.cage.profile import Profile
from fuservice.errors import UsageError
from fuservice.linux import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Final

__all__ = ["FIRST_KEPT", "HANDOVER_FD", "WALLS", "Profile", "clone_flags", "enter", "plan", "unshare"]

#: What a server has open when it enters: null, log, log, the socket; and, supervised, where the listener goes.
FIRST_KEPT: Final = 4
HANDOVER_FD: Final = 4

#: Name → what is behind the wall.
WALLS: Final = {
    "session": "the starter's terminal",
    "limits": "memory, processor time, processes, descriptors and locks beyond a budget",
    "descriptors": "what the starter has open",
    "user": "the rights of the starter's user, and of every other process",
    "pid": "other processes",
    "mount": "the starter's mounts",
    "net": "the network, and sockets with abstract names",
    "ipc": "System V IPC and message queues",
    "uts": "the machine's name",
    "cgroup": "the names of control groups",
    "root": "the machine's files, devices and /proc",
    "capabilities": "what root may",
    "privileges": "programs that give rights: set-user-ID, file capabilities",
    "dumpable": "being looked into by processes of the same user; core files",
    "parent": "outliving the supervisor",
    "landlock": "opening any file, TCP, signals and abstract sockets to the outside",
    "seccomp": "every system call that a server does not need",
}

#: Wall → the walls that it stands on: they stay as long as it does. Nobody pivots the root of another's namespace, and the
#: kernel takes filters from the unprivileged only where they can gain no privileges.
STANDS_ON: Final = {"root": "mount", "landlock": "privileges", "seccomp": "privileges"}


def plan(profile: Profile, without: Collection[str] = ()) -> Sequence[ops.Operation]:
    """Return the operations that contain a server as *profile* says; UsageError where *without* has a name of no wall."""
    for name in without:
        if name not in WALLS:
            raise UsageError(f"cage: there is no wall `{name}': there are {', '.join(WALLS)}")
    standing = set(WALLS) - set(without)
    standing |= {below for wall, below in STANDS_ON.items() if wall in standing}
    own = [wall for wall in spaces.OWN_SPACES if wall in standing]
    return tuple(
        operation for operation in _everything(profile, own)
        if operation.wall in standing or (not operation.wall and operation != spaces.Namespaces(()))
    )  # fmt: skip


def _everything(profile: Profile, own_spaces: Sequence[str]) -> Iterator[ops.Operation]:
    """Yield the whole cage. The order is argued: each step needs what a later one takes away."""
    yield interpreter.SealInterpreter()  # first: whatever follows may not load anything either
    yield ops.NewSession()
    yield from _limits(profile)
    yield ops.OomScore(500)  # needs /proc
    yield ops.Umask()
    yield ops.CloseDescriptors(FIRST_KEPT + profile.supervised)
    if profile.user_namespace:
        assert profile.uid is not None and profile.gid is not None
        yield credentials.UserNamespace(profile.uid, profile.gid)  # needs /proc; gives the rights to all that follows
    yield spaces.PidNamespace()
    yield spaces.Namespaces(own_spaces)  # needs CAP_SYS_ADMIN, as do the next two and the root
    yield spaces.HostName()
    yield from _user(profile)  # needs /proc, for its number
    yield spaces.EmptyRoot(profile.binds)
    yield credentials.DropBoundingSet()  # needs CAP_SETPCAP
    yield credentials.DropCapabilities()
    yield credentials.NoNewPrivileges()
    yield ops.NotDumpable()  # after the ids: their change resets this, and the next
    if profile.supervised:
        yield ops.DieWithParent()
    yield filters.Landlock(profile.binds)  # after the root: whoever is under it mounts nothing
    if profile.threads:
        yield ops.SpareThreads(profile.threads)  # each has the walls that its maker had
    yield ops.Limit("NPROC", 0)  # it starts nobody from now on
    rules = profile.rules()
    yield filters.Seccomp(rules, HANDOVER_FD if profile.supervised else None)  # last: it allows none of the above


def _limits(profile: Profile) -> Iterator[ops.Operation]:
    yield ops.Limit("CORE", 0)
    yield ops.Limit("NOFILE", profile.descriptors)
    yield ops.Limit("AS", profile.memory)
    if profile.cpu_seconds is not None:
        yield ops.Limit("CPU", profile.cpu_seconds)
    for name in ("FSIZE", "MEMLOCK", "MSGQUEUE", "SIGPENDING", "NICE", "RTPRIO"):
        yield ops.Limit(name, 0)  # it writes no file, locks no memory, queues nothing, and is in no hurry


def _user(profile: Profile) -> Iterator[ops.Operation]:
    if profile.uid is None:
        yield credentials.BecomeOwnUser(profile.first_uid)
    elif not profile.user_namespace:
        yield credentials.BecomeUser(profile.uid, profile.uid if profile.gid is None else profile.gid)


def clone_flags(operations: Sequence[ops.Operation]) -> int:
    """Return the flags with which clone(2) must make the process that is to execute *operations*."""
    flags = 0
    for operation in operations:
        flags |= operation.clone_flags
    return flags


def unshare(operations: Sequence[ops.Operation]) -> None:
    """Prepare a process that nobody cloned for *operations*: what clone(2) would have given it, as far as that is possible.

    A process cannot move itself into a new pid namespace: that wall stops its start, unless whoever executed it had put it
    into one, or it was left out.
    """
    flags = clone_flags(operations) & ~namespaces.CLONE_NEWPID
    if flags:
        namespaces.unshare(flags)


def enter(operations: Sequence[ops.Operation]) -> None:
    """Execute *operations* in this process; OSError at the first that fails, noting which: then the process must end."""
    for operation in operations:
        try:
            operation.execute()
        except OSError as error:
            error.add_note(f"while entering the cage: {operation.describe()}")
            raise
