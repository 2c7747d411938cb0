"""openat2(2): opening a path under rules that open(2) does not have."""

from __future__ import annotations

import ctypes
import os
import struct

from fuservice.linux import libc
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NR_OPENAT2: Final = 437
AT_FDCWD: Final = -100

# linux/openat2.h
RESOLVE_NO_MAGICLINKS: Final = 0x02
OPEN_HOW: Final = struct.Struct("QQQ")  # struct open_how: flags, mode, resolve


def openat2(path: str, flags: int, resolve: int, directory: int = AT_FDCWD) -> Fd:
    """Open *path* close-on-exec, resolved under RESOLVE_ rules. The caller owns it; OSError names *path*."""
    how = ctypes.create_string_buffer(OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve), OPEN_HOW.size)
    return Fd(libc.syscall("openat2", NR_OPENAT2, directory, os.fsencode(path), how, OPEN_HOW.size, path=path))
