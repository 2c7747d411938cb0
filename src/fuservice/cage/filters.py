"""What a caged process may ask of the kernel: Landlock for objects, seccomp for calls. After all that they forbid."""

from __future__ import annotations

import os

from fuservice.cage.operations import Operation
from fuservice.linux import landlock, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from fuservice.linux.seccomp import Rules


class Landlock(Operation):
    """No file to open, no TCP, no abstract socket, no signal to anybody: whatever else would let it."""

    __slots__ = ("binds",)
    wall = "landlock"

    def __init__(self, binds: Collection[str]) -> None:
        """*binds* are those of EmptyRoot: what shows can be read."""
        self.binds = tuple(binds)

    def describe(self) -> str:
        right = f"no right but to read {', '.join(self.binds)}" if self.binds else "no right on any file"
        return f"Landlock: {right}, no network, no signal and no abstract socket to the outside"

    def execute(self) -> None:
        places = [f"/{os.path.basename(source)}" for source in self.binds]  # noqa: PTH119
        readable = [os.open(place, os.O_PATH | os.O_CLOEXEC) for place in places]
        try:
            landlock.deny_all(readable)
        finally:
            for directory in readable:
                os.close(directory)


class Seccomp(Operation):
    """Few system calls, in few forms; any other ends the process. The last: it forbids what built the other walls."""

    __slots__ = ("handover", "program", "rules")
    wall = "seccomp"

    def __init__(self, rules: Rules, handover: int | None) -> None:
        """With a descriptor for the *handover*, the supervisor at its other end gets the listener; the kernel kills without.

        The handover stays open. SystemCallError where we do not know this machine's calls.
        """
        self.rules, self.handover = rules, handover
        violation = seccomp.SECCOMP_RET_KILL_PROCESS if handover is None else seccomp.SECCOMP_RET_USER_NOTIF
        self.program = seccomp.program(rules, violation, syscalls.this_machine())

    def describe(self) -> str:
        by = "the kernel kills it" if self.handover is None else "its supervisor names the call and kills it"
        return f"seccomp: at any system call but these {len(self.rules)} {by}: {', '.join(self.rules)}"

    def execute(self) -> None:
        if self.handover is None:
            seccomp.install(self.program)
            return
        with seccomp.install_with_listener(self.program) as listener:
            seccomp.hand_over(self.handover, listener.fileno())
