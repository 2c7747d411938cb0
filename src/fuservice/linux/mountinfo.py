"""What is mounted, as the kernel tells it: /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Mount:
    """One mount: ids, the device ("8:1") of its superblock, where it is, and what it shows."""

    __slots__ = ("device", "fstype", "mount_id", "mount_options", "mount_point", "parent_id", "root", "source",
                 "super_options")  # fmt: skip

    def __init__(self, mount_id: int, parent_id: int, device: str, root: str, mount_point: str,
                 mount_options: str, fstype: str, source: str, super_options: str) -> None:  # fmt: skip
        self.mount_id, self.parent_id, self.device, self.root = mount_id, parent_id, device, root
        self.mount_point, self.mount_options, self.fstype, self.source = mount_point, mount_options, fstype, source
        self.super_options = super_options


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
