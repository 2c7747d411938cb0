"""Leaving the machine's file tree: mount_setattr(2) for how mounts propagate, pivot_root(2) for where the root is.

Only in a mount namespace of our own: whoever calls these elsewhere takes the machine's root away.
"""

from __future__ import annotations

import struct

from fuservice.linux import libc, mountapi, opentree, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

AT_RECURSIVE: Final = 0x8000  # linux/fcntl.h
MS_PRIVATE: Final = 1 << 18  # linux/mount.h
MS_SLAVE: Final = 1 << 19
MOUNT_ATTR: Final = struct.Struct("QQQQ")  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd


def make_all_private() -> None:
    """No mount or unmount in our namespace reaches another's from now on. One call for the whole tree (Linux 5.12)."""
    _mount_setattr(opentree.AT_FDCWD, "/", AT_RECURSIVE, MOUNT_ATTR.pack(0, 0, MS_PRIVATE, 0))


def make_all_slaves() -> None:
    """No mount or unmount in our namespace reaches another's from now on, but those of others still reach ours.

    So what they unmount is not kept busy by us (mount_namespaces(7)).
    """
    _mount_setattr(opentree.AT_FDCWD, "/", AT_RECURSIVE, MOUNT_ATTR.pack(0, 0, MS_SLAVE, 0))


def make_read_only(mount: int) -> None:
    """Let nothing be written through the mount whose root is descriptor *mount*."""
    _mount_setattr(mount, "", opentree.AT_EMPTY_PATH, MOUNT_ATTR.pack(mountapi.MOUNT_ATTR_RDONLY, 0, 0, 0))


def _mount_setattr(directory: int, path: str, flags: int, attributes: bytes) -> None:
    number = syscalls.number("mount_setattr")
    libc.syscall("mount_setattr", number, directory, path.encode(), flags, attributes, len(attributes))


def pivot_to_here() -> None:
    """Make the working directory, the root of a mount, the root of the namespace; detach all that was mounted before.

    With both arguments "." the old root is stacked upon the new one, where "." leads to it (pivot_root(2), NOTES).
    """
    libc.syscall("pivot_root", syscalls.number("pivot_root"), b".", b".")
    mountapi.umount2(".", mountapi.MNT_DETACH)
