"""seccomp(2): an allow-list of system calls as a BPF program, installing it, and learning which call was refused.

A program judges the number and, where a call is needed in one form only, the low 32 bits of its arguments. What it does not
allow ends the process, or waits until the holder of the listener has ended it.
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import fcntl
import select
import struct

from fuservice.linux import libc, syscalls
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, TypeAlias

    #: Argument number, mask, values: the call is allowed if (argument & mask) is one of the values.
    Check: TypeAlias = tuple[int, int, tuple[int, ...]]
    #: Name of a call → all that must hold of its arguments. What is asked for most comes first.
    Rules: TypeAlias = Mapping[str, Sequence[Check]]

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_TSYNC: Final = 1 << 0
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 1 << 3
SECCOMP_FILTER_FLAG_TSYNC_ESRCH: Final = 1 << 4  # Linux 5.7; without it no listener
_ALL_THREADS: Final = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH
SECCOMP_RET_KILL_PROCESS: Final = 0x8000_0000
SECCOMP_RET_ERRNO: Final = 0x0005_0000  # its low 16 bits are the errno
SECCOMP_RET_USER_NOTIF: Final = 0x7FC0_0000
SECCOMP_RET_ALLOW: Final = 0x7FFF_0000
SECCOMP_IOCTL_NOTIF_RECV: Final = 0xC050_2100
#: struct seccomp_notif: id, pid, flags, then struct seccomp_data: nr, arch, instruction_pointer, args.
SECCOMP_NOTIF: Final = struct.Struct("QII iIQ6Q")

# linux/bpf_common.h, linux/filter.h; offsets into struct seccomp_data
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_INSTRUCTION: Final = struct.Struct("HBBI")  # struct sock_filter: code, jt, jf, k
_PROGRAM: Final = struct.Struct("HP")  # struct sock_fprog
_NR, _ARCH, _ARGS = 0, 4, 16


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, k)


def program(rules: Rules, violation: int, machine: str) -> bytes:
    """Return the filter that allows what *rules* name on *machine*, and answers *violation* (SECCOMP_RET_…) to all else.

    Calls by another architecture's entry (32 bits on x86-64) are violations, and so are x32's, whose numbers differ from
    every number here by bit 30. A call that only another machine has is left out; KeyError where no machine has it.
    """
    numbers, (_, architecture) = syscalls.numbers(machine), syscalls.MACHINES[machine]
    parts = [_op(_LOAD, _ARCH), _op(_JUMP_EQUAL, architecture, 1, 0), _op(_RETURN, violation), _op(_LOAD, _NR)]
    for name, checks in rules.items():
        if name not in numbers and any(name in syscalls.numbers(other) for other in syscalls.MACHINES):
            continue
        judge = b"".join(_check(*check, violation) for check in checks) + _op(_RETURN, SECCOMP_RET_ALLOW)
        parts += [_op(_JUMP_EQUAL, numbers[name], 0, len(judge) // _INSTRUCTION.size), judge]
    return b"".join([*parts, _op(_RETURN, violation)])


def _check(argument: int, mask: int, values: tuple[int, ...], violation: int) -> bytes:
    """Go on after this part if the argument is as it must be. Both machines are little-endian: the low half comes first."""
    jumps = (_op(_JUMP_EQUAL, value, len(values) - place) for place, value in enumerate(values))
    return b"".join([_op(_LOAD, _ARGS + 8 * argument), _op(_AND, mask), *jumps, _op(_RETURN, violation)])


def install(filter_: bytes) -> None:
    """Put this process, with all its threads, under *filter_*, for good; it stacks upon those there are.

    Needs no_new_privs, or CAP_SYS_ADMIN. ESRCH where a thread has a filter that the calling one has not.
    """
    _install(filter_, 0)


def install_with_listener(filter_: bytes) -> Fd:
    """Do the same; return the descriptor by which its holder receives violations (SECCOMP_RET_USER_NOTIF).

    Once nobody has it open any more, violations fail with ENOSYS and the process goes on: end the process first.
    """
    return Fd(_install(filter_, SECCOMP_FILTER_FLAG_NEW_LISTENER))


def _install(filter_: bytes, flags: int) -> int:
    code = ctypes.create_string_buffer(filter_, len(filter_))
    head = _PROGRAM.pack(len(filter_) // _INSTRUCTION.size, ctypes.addressof(code))
    return libc.syscall("seccomp", syscalls.number("seccomp"), SECCOMP_SET_MODE_FILTER, flags | _ALL_THREADS, head)


def hand_over(connection: int, listener: int) -> None:
    """Send a copy of *listener* over the SEQPACKET socket *connection*; BrokenPipeError where nobody is there to take it."""
    socket = _socket.socket(fileno=connection)
    try:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", listener))]
        socket.sendmsg([b"listener"], rights, _socket.MSG_NOSIGNAL)
    finally:
        socket.detach()  # the descriptor is still the caller's


class Violation:
    """A system call that the filter did not allow. Whoever made it waits, until it is killed.

    Unless a signal of its own interrupted it before we asked: then *name* is "", and the call failed with EINTR.
    """

    __slots__ = ("arguments", "name", "pid")

    def __init__(self, pid: int, name: str, arguments: tuple[int, ...]) -> None:
        """*pid* is the thread's, in the pid namespace of whoever received this (0: not seen from there)."""
        self.pid, self.name, self.arguments = pid, name, arguments


def receive(listener: int) -> Violation | None:
    """Return the violation that waits at *listener*, or None. Never blocks; never answers: the process must be killed.

    None too where the process has ended meanwhile.
    """
    if not _events(listener) & select.POLLIN:  # the ioctl would wait
        return None
    notice = bytearray(SECCOMP_NOTIF.size)
    try:
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, notice)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return Violation(0, "", ())
    _, pid, _, number, architecture, _, *arguments = SECCOMP_NOTIF.unpack(notice)
    machine = syscalls.this_machine()
    ours = syscalls.MACHINES[machine][1] == architecture
    name = syscalls.name_of(number, machine) if ours else f"system call {number} of another architecture"
    return Violation(pid, name, tuple(arguments))


def is_over(listener: int) -> bool:
    """Say whether nobody is left under the filter of *listener*."""
    return bool(_events(listener) & select.POLLHUP)


def _events(listener: int) -> int:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return sum(events for _, events in poll.poll(0))
