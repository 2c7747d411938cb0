"""What a server gets: an identity, budgets, and the system calls that it needs. Pure data."""

from __future__ import annotations

from fuservice.cage.credentials import FIRST_UID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Final

    from fuservice.linux.seccomp import Check, Rules

_PROT_EXEC: Final = 0x4  # asm-generic/mman-common.h
_MAP_ANONYMOUS: Final = 0x20
_FIOCLEX, _FIONBIO = 0x5451, 0x5421  # asm-generic/ioctls.h: close on exec, (non-)blocking
_F_GET_SEALS: Final = 1034  # linux/fcntl.h
_AT_EMPTY_PATH: Final = 0x1000
_PR_SET_NAME: Final = 15
_SOL_SOCKET, _SO_PASSRIGHTS = 1, 83  # asm-generic/socket.h
_WHOLE: Final = 0xFFFF_FFFF

#: What the serving of a mount takes, whatever the filesystem: the fuse device, memory, the end. This is all that malloc(3)
#: asks for in a process that never had a second thread; in others it would read files of /proc.
SERVE: Final[Mapping[str, Sequence[Check]]] = {
    "readv": (), "writev": (), "write": (),
    "mmap": ((2, _PROT_EXEC, (0,)), (3, _MAP_ANONYMOUS, (_MAP_ANONYMOUS,))),
    "munmap": (), "mremap": (), "brk": (),
    "close": (), "exit_group": (),
    "clock_gettime": (),  # where the vDSO cannot tell the time
    # The kernel's own: after a stop, after a tick of the timer that was set before (fuse/watch.py). None of its own: signals
    # at its will would take a forbidden call back before the supervisor has seen it.
    "restart_syscall": (), "rt_sigreturn": (),
}  # fmt: skip

#: What the conversation with the helper takes besides, on the socket and on the descriptors that come through it.
CONVERSE: Final[Mapping[str, Sequence[Check]]] = {
    "recvmsg": (), "sendmsg": (), "shutdown": (),
    "poll": (), "ppoll": (),  # poll(2) is the former on x86-64, the latter on aarch64
    "getsockname": (), "getpeername": (), "getsockopt": ((1, _WHOLE, (_SOL_SOCKET,)),),
    "setsockopt": ((1, _WHOLE, (_SOL_SOCKET,)), (2, _WHOLE, (_SO_PASSRIGHTS,))),
    "ioctl": ((1, _WHOLE, (_FIOCLEX, _FIONBIO)),),
    "fcntl": ((1, _WHOLE, (_F_GET_SEALS,)),),
    "fstat": (), "newfstatat": ((3, _WHOLE, (_AT_EMPTY_PATH,)),),  # glibc says fstat(2) in either way
    "pread64": (),  # the argv file
    "getpid": (),  # is LISTEN_PID us?
    "prctl": ((0, _WHOLE, (_PR_SET_NAME,)),),
}  # fmt: skip

#: What threads take to wait for each other, and no more of futex(2) than that: FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET
#: (linux/futex.h), whatever the flags FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME say.
THREADS: Final[Mapping[str, Sequence[Check]]] = {"futex": ((1, _WHOLE & ~0x180, (0, 1, 9)),)}
#: So many threads a server may have beside the main one: a control group's limit is the same for all drivers.
MOST_THREADS: Final = 8


class Profile:
    """An identity, budgets, and what the driver needs."""

    __slots__ = (
        "binds", "cpu_seconds", "descriptors", "first_uid", "gid", "memory", "supervised", "syscalls", "threads", "uid",
        "user_namespace",
    )  # fmt: skip

    def __init__(
        self, *, uid: int | None = None, gid: int | None = None, first_uid: int = FIRST_UID, user_namespace: bool = False,
        descriptors: int = 64, memory: int = 1 << 30, cpu_seconds: int | None = None,
        syscalls: Collection[str] = (), binds: Collection[str] = (), threads: int = 0, supervised: bool = False,
    ) -> None:  # fmt: skip
        """Say who the server is, in one of three ways.

        Nothing: a user of its own, its process number above *first_uid*, for which root must start it. *uid* and *gid*: that
        user; root too. These and *user_namespace*: the starter, who is these, without being root.

        *descriptors* bounds RLIMIT_NOFILE, *memory* (bytes of address space) RLIMIT_AS, *cpu_seconds* RLIMIT_CPU. *syscalls*
        are the driver's own, beside those of every server; *binds* directories that it sees. It has *threads* beside the main
        one, at most MOST_THREADS, from when it enters, and can have no more. *supervised*: the parent lives
        as long as the server, and takes the filter's listener on descriptor ``plan.HANDOVER_FD``.
        """
        self.uid, self.gid, self.first_uid, self.user_namespace = uid, gid, first_uid, user_namespace
        self.descriptors, self.memory, self.cpu_seconds = descriptors, memory, cpu_seconds
        self.syscalls, self.binds, self.threads, self.supervised = tuple(syscalls), tuple(binds), threads, supervised

    def rules(self) -> Rules:
        """Return the system calls that the server may make."""
        own: Rules = dict.fromkeys(self.syscalls, ())
        return {**SERVE, **CONVERSE, **(THREADS if self.threads else {}), **own}
