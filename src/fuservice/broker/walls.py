"""What the broker gives up before it listens: all of root but CAP_SYS_ADMIN, and every system call that mounting does not take.

There is no Landlock and no mount namespace among them: whoever is under the one mounts nothing, and whoever is in the other
mounts where nobody looks.
"""

from __future__ import annotations

import errno
import os

from fuservice.cage import credentials, interpreter
from fuservice.cage import operations as ops
from fuservice.cage.operations import Operation
from fuservice.cage.profile import SERVE
from fuservice.errors import PolicyError
from fuservice.linux import capabilities, mountapi, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from fuservice.linux.seccomp import Check

CAP_SYS_ADMIN: Final = 21  # linux/capability.h
_ADMIN: Final = 1 << CAP_SYS_ADMIN
PROCESSES: Final = 64  # callers that are served at once
DESCRIPTORS: Final = 1_024
MEMORY: Final = 512 << 20  # bytes of address space

_WHOLE: Final = 0xFFFF_FFFF
_READ_ONLY: Final = (2, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC, (os.O_RDONLY,))  # O_PATH is so too
_FIOCLEX, _FIONBIO, _TCGETS = 0x5451, 0x5421, 0x5401  # asm-generic/ioctls.h; Python asks whether a file is a terminal
_F_GETFL: Final = 3
_FORK: Final = 0x0120_0011  # CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, SIGCHLD: how glibc forks
_ATTRIBUTES: Final = (
    mountapi.MOUNT_ATTR_RDONLY | mountapi.MOUNT_ATTR_NOEXEC | mountapi.MOUNT_ATTR_NOATIME | mountapi.MOUNT_ATTR_STRICTATIME
    | mountapi.MOUNT_ATTR_NODIRATIME | mountapi.MOUNT_ATTR_NOSYMFOLLOW
)  # fmt: skip
_SAFE: Final = mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV

#: What a caller's process takes: his socket, a look at descriptors and at /proc/self, and new mounts of one form.
CALLER: Final[Mapping[str, Sequence[Check]]] = {
    **SERVE,
    "recvmsg": (), "sendmsg": (), "poll": (), "ppoll": (), "getsockname": (), "getpeername": (), "getsockopt": (),
    "openat": (_READ_ONLY,), "read": (), "lseek": (), "fstat": (), "newfstatat": (), "fstatfs": (), "readlink": (), "readlinkat": (),
    "fcntl": ((1, _WHOLE, (_F_GETFL,)),), "ioctl": ((1, _WHOLE, (_FIOCLEX, _FIONBIO, _TCGETS)),),
    "getpid": (), "getrandom": (), "statmount": (), "rt_sigprocmask": (), "rt_sigaction": (), "set_robust_list": (), "futex": (),
    "fsopen": ((1, _WHOLE, (mountapi.FSOPEN_CLOEXEC,)),),
    "fsconfig": ((1, _WHOLE, (mountapi.FSCONFIG_SET_FLAG, mountapi.FSCONFIG_SET_STRING, mountapi.FSCONFIG_CMD_CREATE)),),
    "fsmount": ((1, _WHOLE, (mountapi.FSMOUNT_CLOEXEC,)), (2, _WHOLE & ~_ATTRIBUTES, (_SAFE,))),
    "move_mount": ((4, _WHOLE, (mountapi.MOVE_MOUNT_F_EMPTY_PATH | mountapi.MOVE_MOUNT_T_EMPTY_PATH,)),),
    "umount2": ((1, _WHOLE, (mountapi.MNT_DETACH,)),),
}  # fmt: skip

#: What the process that listens takes besides, for callers' processes and for itself.
LISTENER: Final[Mapping[str, Sequence[Check]]] = {
    **CALLER,
    "accept4": (), "shutdown": (), "clone": ((0, _WHOLE, (_FORK,)),), "close_range": (),
    "pidfd_open": (), "pidfd_send_signal": (), "waitid": (), "wait4": (), "gettid": (), "rseq": (), "uname": (),
    "seccomp": (),  # the filter of a caller's process
}  # fmt: skip


class OnlyAdmin(Operation):
    """Of all capabilities CAP_SYS_ADMIN is left: for fsopen(2), move_mount(2) and umount2(2), which ask for no less."""

    __slots__ = ()
    wall = "capabilities"

    def describe(self) -> str:
        return "drop every capability but CAP_SYS_ADMIN"

    def execute(self) -> None:
        capabilities.clear_ambient()
        capabilities.set_capabilities(_ADMIN, _ADMIN, 0)


class Filter(Operation):
    """Few system calls, in few forms. In the listener another one fails; in a caller's process it is the end."""

    __slots__ = ("_fatal", "_program", "_rules")
    wall = "seccomp"

    def __init__(self, rules: Mapping[str, Sequence[Check]], *, fatal: bool) -> None:
        """*fatal*: it is the end. SystemCallError where we do not know this machine's calls."""
        self._rules, self._fatal = rules, fatal
        violation = seccomp.SECCOMP_RET_KILL_PROCESS if fatal else seccomp.SECCOMP_RET_ERRNO | errno.EPERM
        self._program = seccomp.program(rules, violation, syscalls.this_machine())

    def describe(self) -> str:
        what = "the kernel kills it" if self._fatal else "it fails"
        return f"seccomp: at any system call but these {len(self._rules)} {what}: {', '.join(self._rules)}"

    def execute(self) -> None:
        seccomp.install(self._program)


def listener(effective: int, *, root: bool) -> Sequence[Operation]:
    """Return what the listener does before it takes the first connection. *effective* are its capabilities, as a mask.

    PolicyError where CAP_SYS_ADMIN is not among them. As *root* it becomes a user that nobody else is.
    """
    if not effective & _ADMIN:
        raise PolicyError("the broker has no CAP_SYS_ADMIN, without which nobody mounts: start it as root")
    limits = {"CORE": 0, "NOFILE": DESCRIPTORS, "AS": MEMORY, "MEMLOCK": 0, "MSGQUEUE": 0, "RTPRIO": 0}
    become = (credentials.BecomeOwnUser(credentials.FIRST_UID), credentials.DropBoundingSet()) if root else ()
    return (
        interpreter.SealInterpreter(), *(ops.Limit(name, value) for name, value in limits.items()), ops.Umask(), *become,
        # Processes of a user who is nobody else: the listener and those for callers.
        *([ops.Limit("NPROC", PROCESSES + 1)] if root else []),
        OnlyAdmin(), credentials.NoNewPrivileges(), ops.NotDumpable(), Filter(LISTENER, fatal=False),
    )  # fmt: skip


def caller() -> Sequence[Operation]:
    """Return what a caller's process does before it takes his first packet."""
    return (Filter(CALLER, fatal=True),)
