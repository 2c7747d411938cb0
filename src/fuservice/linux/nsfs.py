"""Namespaces as files (ioctl_ns(2)): which user namespace owns another, and whose it is."""

from __future__ import annotations

import fcntl
import os
import struct

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# linux/nsfs.h: _IO(0xb7, …)
NS_GET_USERNS: Final = 0xB701
NS_GET_OWNER_UID: Final = 0xB704
_UID: Final = struct.Struct("I")


def owner(path: str) -> Fd:
    """Return the user namespace that owns the namespace at *path* (/proc/PID/ns/mnt); the caller owns the descriptor.

    PermissionError where it is no namespace of ours or below ours: then our capabilities do not reach it.
    """
    with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        return Fd(fcntl.ioctl(namespace.fileno(), NS_GET_USERNS))


def owner_uid(user_namespace: int) -> int:
    """Return the uid, as our user namespace has it, of who made the user namespace that descriptor *user_namespace* stands for."""
    answer = fcntl.ioctl(user_namespace, NS_GET_OWNER_UID, bytes(_UID.size))
    return int(_UID.unpack(answer)[0])
