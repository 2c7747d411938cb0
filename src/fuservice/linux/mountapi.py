"""Mounting by file descriptors: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), and mount(2), umount2(2).

Numbers: linux/mount.h and asm-generic/unistd.h (these calls have the same number on every architecture).
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_ulong, c_void_p

from fuservice.linux import libc
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NR_MOVE_MOUNT: Final = 429
NR_FSOPEN: Final = 430
NR_FSCONFIG: Final = 431
NR_FSMOUNT: Final = 432

FSOPEN_CLOEXEC: Final = 1
FSMOUNT_CLOEXEC: Final = 1
FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_CMD_CREATE: Final = 6
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_STRICTATIME: Final = 0x20
MOUNT_ATTR_NODIRATIME: Final = 0x80
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000

MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_mount = libc.declare("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_void_p)
_umount2 = libc.declare("umount2", c_char_p, c_int)


def fsopen(fstype: str) -> Fd:
    """Return a new filesystem context for *fstype*; read(2) on it gives the kernel's messages. The caller owns it."""
    return Fd(libc.syscall("fsopen", NR_FSOPEN, os.fsencode(fstype), FSOPEN_CLOEXEC))


def fsconfig_set(context: int, key: str, value: str | None = None) -> None:
    """Set the option *key* to *value* (at most 255 bytes), or, without one, the flag *key*."""
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    text = None if value is None else os.fsencode(value)
    libc.syscall("fsconfig", NR_FSCONFIG, context, command, os.fsencode(key), text, 0)


def fsconfig_create(context: int) -> None:
    """Make the superblock."""
    libc.syscall("fsconfig", NR_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(context: int, attributes: int) -> Fd:
    """Return a new detached mount of the context's superblock: it is gone when the descriptor is closed, unless moved."""
    return Fd(libc.syscall("fsmount", NR_FSMOUNT, context, FSMOUNT_CLOEXEC, attributes))


def move_mount(mount: int, mount_point: int) -> None:
    """Attach the mount that descriptor *mount* stands for at the place that descriptor *mount_point* stands for."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    libc.syscall("move_mount", NR_MOVE_MOUNT, mount, b"", mount_point, b"", flags)


def messages(context: int) -> list[str]:
    """Return what the kernel has to say about the context, one message each ("fuse: Unknown parameter 'x'").

    The descriptor gives one message for each read, and ENODATA after the last (fsopen(2)).
    """
    told: list[str] = []
    while len(told) < 20:
        try:
            message = os.read(context, 1024).decode("utf-8", "backslashreplace").strip()
        except OSError:
            break
        told.append(message[2:] if message[:2] in ("e ", "w ", "i ") else message)
    return told


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2); the error names *target*."""
    options = ctypes.create_string_buffer(os.fsencode(data))
    if _mount(os.fsencode(source), os.fsencode(target), os.fsencode(fstype), flags, options) < 0:
        libc.fail("mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2); the error names *target*."""
    if _umount2(os.fsencode(target), flags) < 0:
        libc.fail("umount2", target)


def detach(mount: int) -> None:
    """Detach the mount whose root descriptor *mount* stands for: by descriptor, whatever its path shows by now."""
    umount2(f"/proc/self/fd/{mount}", MNT_DETACH)
