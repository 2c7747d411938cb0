"""The one place that knows libc: how a prototype is declared, and how a failed call becomes an OSError."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_int

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the 11 ms of importing typing: this is on the mount path
if TYPE_CHECKING:
    from typing import Any, NoReturn

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc["syscall"]  # indexing gives a fresh object: no two prototypes are shared
_syscall.restype = ctypes.c_long


def declare(symbol: str, *argtypes: type, restype: type = c_int) -> Any:
    """Return libc's *symbol* with its prototype; the object is the caller's own."""
    function = _libc[symbol]
    function.argtypes, function.restype = argtypes, restype
    return function


def fail(call: str, path: str | None = None) -> NoReturn:
    """Raise the OSError of the call that has just failed, naming *path* and noting *call*."""
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number), path)
    error.add_note(f"while calling {call}()")
    raise error


def syscall(name: str, number: int, *args: Any, path: str | None = None) -> int:
    """Make system call *number*; return its result, or raise OSError naming *path*.

    Integers go as C ``long`` (ctypes would pass a Python int as a 32-bit ``int``), everything else as ctypes does.
    """
    result = int(_syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args)))
    if result < 0:
        fail(name, path)
    return result
