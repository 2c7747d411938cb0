"""What a caged process may ask of the kernel: Landlock for objects, seccomp for calls. After all that they forbid."""

from __future__ import annotations

import os

from fuservice.cage.operations import Operation
from fuservice.linux import landlock, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.linux.seccomp import Rules


class Landlock(Operation):
    """No file to open, no TCP, no abstract socket, no signal to anybody: whatever else would let it."""

    __slots__ = ()
    wall = "landlock"

    def describe(self) -> str:
        return "Landlock: no right on any file, no network, no signal and no abstract socket to the outside"

    def execute(self) -> None:
        landlock.deny_all()


class Seccomp(Operation):
    """Few system calls, in few forms; any other ends the process. The last: it forbids what built the other walls."""

    __slots__ = ("handover", "program", "rules")
    wall = "seccomp"

    def __init__(self, rules: Rules, handover: int | None) -> None:
        """With a descriptor for the *handover*, the supervisor at its other end gets the listener; the kernel kills without.

        The handover is closed. SystemCallError where we do not know this machine's calls.
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
        os.close(self.handover)
