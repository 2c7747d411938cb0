"""prctl(2) and capset(2): giving up what a process could do. Each call binds the calling thread, for good."""

from __future__ import annotations

import ctypes
import struct

from fuservice.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h
CAP_HEADER: Final = struct.Struct("Ii")  # version, pid
CAP_DATA: Final = struct.Struct("III")  # effective, permitted, inheritable; low words first, then high

_prctl = libc.declare("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)
_capset = libc.declare("capset", ctypes.c_char_p, ctypes.c_char_p)
_capget = libc.declare("capget", ctypes.c_char_p, ctypes.c_char_p)


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


def drop_bounding_set() -> None:
    """Drop every capability from the bounding set. Needs CAP_SETPCAP, so it comes before the ids change."""
    for capability in range(last_capability() + 1):
        prctl(PR_CAPBSET_DROP, capability)


def clear_ambient() -> None:
    """Empty the ambient set."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def last_capability() -> int:
    """Return the largest capability that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read())


def capabilities() -> tuple[int, int, int]:
    """Return the calling thread's effective, permitted and inheritable sets, as bit masks."""
    data = ctypes.create_string_buffer(2 * CAP_DATA.size)
    if _capget(CAP_HEADER.pack(_LINUX_CAPABILITY_VERSION_3, 0), data) < 0:
        libc.fail("capget")
    low, high = CAP_DATA.iter_unpack(data.raw)
    return low[0] | high[0] << 32, low[1] | high[1] << 32, low[2] | high[2] << 32


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread."""
    sets = (effective, permitted, inheritable)
    data = CAP_DATA.pack(*(s & 0xFFFF_FFFF for s in sets)) + CAP_DATA.pack(*(s >> 32 for s in sets))
    if _capset(CAP_HEADER.pack(_LINUX_CAPABILITY_VERSION_3, 0), data) < 0:
        libc.fail("capset")
