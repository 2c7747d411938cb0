"""From a profile to the list of operations, in the order in which they can be executed. Pure: nothing is asked of the system."""

from __future__ import annotations

from fuservice.cage import operations as ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

NOBODY: Final = 65_534


class Profile:
    """What a server gets: an identity and budgets."""

    __slots__ = ("descriptors", "gid", "memory", "uid")

    def __init__(self, *, uid: int = NOBODY, gid: int = NOBODY, descriptors: int = 64, memory: int = 1 << 30) -> None:
        """*descriptors* bounds RLIMIT_NOFILE, *memory* (bytes of address space) RLIMIT_AS."""
        self.uid, self.gid, self.descriptors, self.memory = uid, gid, descriptors, memory


def plan(profile: Profile) -> Sequence[ops.Operation]:
    """Return the operations that contain a server as *profile* says."""
    return (
        ops.NewSession(),
        ops.Limit("CORE", 0),
        ops.Limit("NOFILE", profile.descriptors),
        ops.Limit("AS", profile.memory),
        ops.DropBoundingSet(),
        ops.BecomeUser(profile.uid, profile.gid),
        ops.DropCapabilities(),
        ops.NoNewPrivileges(),
        ops.NotDumpable(),
    )


def enter(operations: Sequence[ops.Operation]) -> None:
    """Execute *operations* in this process; OSError at the first that fails, noting which: then the process must end."""
    for operation in operations:
        try:
            operation.execute()
        except OSError as error:
            error.add_note(f"while entering the cage: {operation.describe()}")
            raise
