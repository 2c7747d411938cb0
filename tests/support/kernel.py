"""The four system calls that the tests make themselves: what is under test must not also hold the ladder.

Nothing here imports ``fuservice``: a broken wrapper of ours may not keep a test from detaching its mounts.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_ulong, c_void_p

CLONE_NEWNS = 0x00020000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = (c_int,)
_libc.mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_void_p)
_libc.umount2.argtypes = (c_char_p, c_int)
_libc.prctl.argtypes = (c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def _check(result: int, path: str | None = None) -> None:
    if result < 0:
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err), path)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces: unshare(2). With CLONE_NEWNS the process must have one thread."""
    _check(_libc.unshare(flags))


def mount(source: str, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Call mount(2)."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, fstype, data)]
    _check(_libc.mount(words[0], words[1], words[2], flags, words[3]), target)


def umount2(target: str, flags: int = 0) -> None:
    """Call umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def become_subreaper() -> None:
    """Adopt every orphan among our descendants, so that a process that a test forgot is found: prctl(2)."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
