"""What is mounted, as the kernel tells it: /proc/self/mountinfo (proc_pid_mountinfo(5)), and which mount a descriptor lies on (statx(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from fuservice.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_DONT_SYNC: Final = 0x4000
STATX_MNT_ID_UNIQUE: Final = 0x4000  # linux/stat.h, Linux 6.8
STATX_SIZE: Final = 256  # struct statx
STATX_MASK: Final = struct.Struct("I")  # stx_mask, at offset 0
STATX_MNT_ID: Final = struct.Struct("144xQ")  # stx_mnt_id


_statx = libc.declare("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class Mount:
    """One mount: ids, the device ("8:1") of its superblock, where it is, and what it shows."""

    __slots__ = (
        "device",
        "fstype",
        "mount_id",
        "mount_options",
        "mount_point",
        "parent_id",
        "root",
        "source",
        "super_options",
    )

    def __init__(self, mount_id: int, parent_id: int, device: str, root: str, mount_point: str,
                 mount_options: str, fstype: str, source: str, super_options: str) -> None:  # fmt: skip
        self.mount_id, self.parent_id, self.device, self.root, self.mount_point = (
            mount_id,
            parent_id,
            device,
            root,
            mount_point,
        )
        self.mount_options, self.fstype, self.source, self.super_options = mount_options, fstype, source, super_options


def parse(text: bytes) -> Iterator[Mount]:
    """Yield the mounts in *text*, the content of a mountinfo file; lines that are none are passed over."""
    for line in text.split(b"\n"):  # not splitlines(): the kernel escapes no carriage return
        words = [os.fsdecode(unescape(word)) for word in line.split(b" ")]
        numbers = [*words[:2], *"".join(words[2:3]).split(":")]  # mount id, parent's id, major and minor
        if "-" not in words[6:] or len(numbers) != 4 or not all(map(_is_id, numbers)):
            continue
        dash = words.index("-", 6)
        if len(words) < dash + 4:
            continue
        yield Mount(int(words[0]), int(words[1]), *words[2:6], *words[dash + 1 : dash + 4])


def _is_id(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 20


def unescape(word: bytes) -> bytes:
    """Undo the kernel's \\040 for space, \\011 tab, \\012 newline and \\134 backslash (fs/proc_namespace.c, mangle())."""
    parts = word.split(b"\\")
    plain = [parts[0]]
    for part in parts[1:]:
        digits = part[:3]
        octal = len(digits) == 3 and all(48 <= d < 56 for d in digits) and int(digits, 8) < 256
        plain.append(bytes([int(digits, 8)]) + part[3:] if octal else b"\\" + part)
    return b"".join(plain)


def mounts() -> list[Mount]:
    """Return the mounts of this process's mount namespace, bottom first where they are stacked."""
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        return list(parse(file.read()))


def unique_id(fd: int, path: str = "") -> int:
    """Return the id, never used twice, of the mount that *fd* (with "") or *path* lies on. Asks no filesystem, so it cannot hang.

    OSError: ENOSYS before Linux 6.8.
    """
    buffer = ctypes.create_string_buffer(STATX_SIZE)
    flags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW | (0 if path else AT_EMPTY_PATH)
    if _statx(fd, os.fsencode(path), flags, STATX_MNT_ID_UNIQUE, buffer) < 0:
        libc.fail("statx", path)
    if not STATX_MASK.unpack_from(buffer)[0] & STATX_MNT_ID_UNIQUE:
        raise OSError(errno.ENOSYS, "this kernel has no unique mount ids", path)
    return int(STATX_MNT_ID.unpack_from(buffer)[0])


def mount_id(fd: int) -> int:
    """Return the id, as mountinfo has it, of the mount that *fd* lies on. Asks no filesystem, so it cannot hang."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
