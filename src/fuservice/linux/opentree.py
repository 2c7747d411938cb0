"""open_tree(2): a descriptor for a mount that is there, or for a copy of it. Numbers: linux/mount.h, linux/fcntl.h."""

from __future__ import annotations

import os

from fuservice.linux import libc
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NR_OPEN_TREE: Final = 428

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC


def open_tree(directory: int, path: str, *, clone: bool = False) -> Fd:
    """Return a descriptor for the mount at *path* below *directory* (AT_FDCWD, or a descriptor and ""), or a copy of it."""
    flags = OPEN_TREE_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (0 if path else AT_EMPTY_PATH)
    return Fd(libc.syscall("open_tree", NR_OPEN_TREE, directory, os.fsencode(path), flags, path=path))
