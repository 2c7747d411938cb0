"""Capabilities (capabilities(7)): capset(2), the bounding and the ambient set. Each call binds the calling thread, for good."""

from __future__ import annotations

import ctypes
import struct

from fuservice.linux import libc
from fuservice.linux.prctl import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PR_CAPBSET_DROP: Final = 24
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h
CAP_HEADER: Final = struct.Struct("Ii")  # version, pid
CAP_DATA: Final = struct.Struct("III")  # effective, permitted, inheritable; low words first, then high

_capset = libc.declare("capset", ctypes.c_char_p, ctypes.c_char_p)
_capget = libc.declare("capget", ctypes.c_char_p, ctypes.c_char_p)


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
