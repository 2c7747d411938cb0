"""Capabilities (capabilities(7)): capset(2), the bounding and the ambient set. Each call binds the calling thread, for good."""

from __future__ import annotations

import ctypes
import errno
import struct

from fuservice.linux import libc
from fuservice.linux.prctl import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CAP_SYS_ADMIN: Final = 21  # linux/capability.h
PR_SET_KEEPCAPS: Final = 8
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
SECUREBITS: Final = (
    0b1110_1111  # linux/securebits.h: NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, and the locks of all four
)
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
CAP_HEADER: Final = struct.Struct("Ii")  # version, pid
CAP_DATA: Final = struct.Struct("III")  # effective, permitted, inheritable; low words first, then high

_capset = libc.declare("capset", ctypes.c_char_p, ctypes.c_char_p)
_capget = libc.declare("capget", ctypes.c_char_p, ctypes.c_char_p)


def may_gain(capability: int) -> bool:
    """Return whether a program that is executed could gain *capability*: whether it is in the bounding set."""
    return bool(prctl(PR_CAPBSET_READ, capability))


def drop_bounding_set() -> None:
    """Drop every capability from the bounding set. Needs CAP_SETPCAP."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL and capability:  # the kernel knows no more
                return
            raise


def lock_securebits() -> None:
    """Let uid 0 mean nothing for capabilities, nor a change of uid, for good. Needs CAP_SETPCAP."""
    prctl(PR_SET_SECUREBITS, SECUREBITS)


def keep_when_changing_user() -> None:
    """Let the permitted set survive the next change of uid; the effective one is empty after it."""
    prctl(PR_SET_KEEPCAPS, 1)


def clear_ambient() -> None:
    """Empty the ambient set."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


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
