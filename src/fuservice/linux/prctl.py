"""prctl(2): giving up what a process could do. Each call binds the calling thread, for good."""

from __future__ import annotations

import ctypes

from fuservice.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39


_prctl = libc.declare("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)


def prctl(option: int, *args: int) -> int:
    """prctl(2) with up to four integer arguments."""
    result = int(_prctl(option, *args, *[0] * (4 - len(args))))
    if result < 0:
        libc.fail("prctl")
    return result


def set_dumpable(value: int) -> None:
    """0: no core dump, and /proc/PID belongs to root: other processes of this uid cannot trace or reopen what we hold."""
    prctl(PR_SET_DUMPABLE, value)


def set_no_new_privs() -> None:
    """From now on no execve(2) adds rights."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_parent_death_signal(signal: int) -> None:
    """Get *signal* when the parent thread ends; a change of user clears it."""
    prctl(PR_SET_PDEATHSIG, signal)


def set_name(name: str) -> None:
    """Set what ps(1) calls the thread: the first 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15], 16)
    prctl(PR_SET_NAME, ctypes.addressof(buffer))
