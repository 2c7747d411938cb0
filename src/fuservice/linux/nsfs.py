"""Namespaces as files (ioctl_ns(2)): which user namespace owns another."""

from __future__ import annotations

import fcntl
import os

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# linux/nsfs.h: _IO(0xb7, 1)
NS_GET_USERNS: Final = 0xB701


def owner(path: str) -> Fd:
    """Return the user namespace that owns the namespace at *path* (/proc/PID/ns/mnt); the caller owns the descriptor.

    PermissionError where it is no namespace of ours or below ours: then our capabilities do not reach it.
    """
    with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        return Fd(fcntl.ioctl(namespace.fileno(), NS_GET_USERNS))
