"""Any system call by its name, as an attacker makes it: without a wrapper that asks, checks or remembers first."""

from __future__ import annotations

import ctypes

from fuservice.linux import libc, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import Array, c_char
    from mmap import mmap

_NUMBERS = syscalls.numbers(syscalls.this_machine())  # asked for once: in a cage the question itself may be forbidden


def call(name: str, *args: int | bytes | Array[c_char] | None) -> int:
    """Make the system call *name*. bytes and buffers go as pointers to them, None as a null pointer."""
    return libc.syscall(name, _NUMBERS[name], *args)


def buffer(content: bytes) -> Array[c_char]:
    """Return memory that the kernel may write to; ``.raw`` is what is in it."""
    return ctypes.create_string_buffer(content, len(content))


def address(memory: Array[c_char] | mmap) -> int:
    """Return where *memory* is, for a structure that holds a pointer to it. Keep *memory* for as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
