"""Joining a connection that another fuse device has: FUSE_DEV_IOC_CLONE (linux/fuse.h, Linux 4.2)."""

from __future__ import annotations

import fcntl
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FUSE_DEV_IOC_CLONE: Final = 0x8004_E500  # _IOR(229, 0, uint32_t)
_FD: Final = struct.Struct("I")
_KEY: Final = "fuse_connection:"


def clone(device: int, mounted: int) -> None:
    """Let fuse device *device*, which has no connection yet, serve the one that *mounted* has. Both stay the caller's.

    What was sent to another process before, as a copy of *device*, serves it too: it is one open file. OSError: EINVAL where
    *device* has a connection already, or *mounted* has none.
    """
    fcntl.ioctl(device, FUSE_DEV_IOC_CLONE, _FD.pack(mounted))


def connection(device: int) -> int | None:
    """Return the number of the connection that fuse device *device* serves; None where there is none, or the kernel is old."""
    with open(f"/proc/self/fdinfo/{device}", encoding="ascii") as file:  # noqa: PTH123
        return next((int(line.split()[1]) for line in file if line.startswith(_KEY)), None)
