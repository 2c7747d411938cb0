"""What a helper owes to a service, as a table and a few lines: written from docs/protocol.md, not from the helper."""

from __future__ import annotations

import errno
import os
from typing import ClassVar

from fuservice.proto import layouts
from fuservice.proto import messages as m
from tests.packets.malformed import REFUSED

NOSUID_NODEV = layouts.MS_NOSUID | layouts.MS_NODEV

#: What the caller typed after -o → the flags that the mount has whatever the service says.
TYPED: dict[str, int] = {
    "": NOSUID_NODEV, "ro": NOSUID_NODEV | layouts.MS_RDONLY, "suid,dev": 0, "allow_other": NOSUID_NODEV,
    "noexec,nosymfollow,ro,rw": NOSUID_NODEV | layouts.MS_NOEXEC | layouts.MS_NOSYMFOLLOW, "dev,fsname=/typed": layouts.MS_NOSUID,
    "user=me": NOSUID_NODEV,
}  # fmt: skip
#: The service's word for the source → whether it may be said. {} is the image's path.
SOURCES: dict[str, bool] = {
    "plain": True, "{}": True, "/elsewhere": True, "/typed": True, "x" * 300: True, "two\nlines": False, "\x1b[2J": False,
    "back\\040slash": False,
}  # fmt: skip
#: The service's OPTS → what reaches the kernel; None: never.
KERNEL_OPTIONS: dict[str, list[tuple[str, str | None]] | None] = {
    "default_permissions": [("default_permissions", None)], "max_read=4096": [("max_read", "4096")],
    "default_permissions,max_read=1": [("default_permissions", None), ("max_read", "1")], "allow_other": [("allow_other", None)],
    "blksize=512": [("blksize", "512")], "fd=3": None, "max_read": None, "max_read=0": None, "max_read=-1": None,
    "rootmode=40000,default_permissions": None, "context=a": None, "allow_root": None, "user_id=0": None, "x-a": None,
}  # fmt: skip
#: The service's MTAB → what the caller must have typed for it; None: never.
MTAB_OPTIONS: dict[str, str | None] = {
    "x-a=b": "", "-n": "", "nofail,x-c": "", "user=me": "user=me", "user=you": None, "user": None, "X-mount.owner=0": None,
    "x-mount.mkdir": None, "loop": None, "x-a\nb": None, "x-a\\054b": None, "x-\x1b[2J": None,
}  # fmt: skip
_ROLES = {kind.magic.to_bytes(4, "big"): kind for kind in m.COMMANDS}
#: Packets that are refused by their form alone, the answer, and which command it would have been.
MALFORMED = [(bad.packet, bad.answer, _ROLES[bad.packet[:4]]) for bad in REFUSED if len(bad.packet) < 1000]
MOST_OPENS = 4
ONCE = (m.SetType, m.SetSource, m.SetMountPoint, m.SetOptions, m.SetMtab)


class Model:
    """One conversation, as the helper should see it."""

    #: What the mount point, a directory, is expected to be → the errno.
    KINDS: ClassVar[dict[int, int]] = {
        0: 0,
        layouts.S_IFDIR: 0,
        layouts.S_IFREG: errno.EISDIR,
        0o120000: errno.EINVAL,
    }

    def __init__(self, image: str, typed: str, *, draft: bool) -> None:
        self.image, self.typed, self.draft = image, typed, draft
        self.done: set[type[m.Message]] = set()
        self.opens = self.complaints = self.flags = 0
        self.mounted = self.said_goodbye = self.fuseblk = False
        self.over: type[Exception] | None = None
        self.source = ""
        self.mtab: str | None = None
        self.options: list[tuple[str, str | None]] = []

    def answered(self, kind: type[m.Message], error: int, *, quiet: bool = False) -> None:
        """Take note of an answer."""
        if error == 0:
            self.done.add(kind)
            self.mounted = self.mounted or kind is m.Mount
        elif self.draft and kind is not m.Open:
            self.over = Exception
        elif not quiet:
            self.complaints += 1

    def in_order(self, kind: type[m.Message]) -> int:
        """Return the errno for *kind* now, whatever is in it."""
        if self.mounted:
            return errno.EBUSY if kind is m.Mount else errno.EINVAL
        return errno.EINVAL if kind in ONCE and kind in self.done else 0

    def open_image(self, flags: int, *, block: bool) -> int:
        """Return the errno for an OPEN of the image."""
        if self.mounted:
            return errno.EINVAL
        if flags & ~(os.O_ACCMODE | os.O_CLOEXEC) or flags & os.O_ACCMODE == os.O_WRONLY:
            return errno.EACCES
        if flags & os.O_RDWR and TYPED[self.typed] & layouts.MS_RDONLY:
            return errno.EROFS
        if block:
            return errno.ENOTBLK
        self.opens += 1
        return errno.EMFILE if self.opens > MOST_OPENS else 0

    def set_source(self, word: str, source: str) -> int:
        """Return the errno for NAME."""
        error = self.in_order(m.SetSource) or (0 if SOURCES[word] else errno.EINVAL)
        self.source = self.source if error else source
        return error

    def set_options(self, text: str) -> int:
        """Return the errno for OPTS."""
        error, allowed = self.in_order(m.SetOptions), KERNEL_OPTIONS[text]
        if not error and (allowed is None or (text == "blksize=512" and not self.fuseblk)):
            error = errno.EINVAL
        if not error and text == "allow_other" and "allow_other" not in self.typed:
            error = errno.EPERM
        if not error:
            self.options = sorted(allowed or [])
        return error

    def set_mtab(self, text: str) -> int:
        """Return the errno for MTAB."""
        typed = MTAB_OPTIONS[text]
        error = self.in_order(m.SetMtab) or (errno.EINVAL if typed is None or typed not in self.typed else 0)
        self.mtab = self.mtab if error else text
        return error

    def mount(self, flags: int, refusal: int) -> int:
        """Return the errno for DOIT, where the kernel would say *refusal*."""
        error = self.in_order(m.Mount)
        if not error and not {m.SetSource, m.SetMountPoint} <= self.done:
            error = errno.EINVAL
        if not error and flags & ~layouts.MS_ALLOWED:
            error = errno.EINVAL
        if not error and self.fuseblk:
            error = errno.ENOTBLK
        if not error and refusal:
            error = errno.EINVAL if self.draft else refusal
        if not error:
            self.flags = flags | TYPED[self.typed]
        return error

    def ends_by(self, flags: int) -> bool:
        """Return whether DOIT with *flags*, now, is where the helper stops talking."""
        ready = not self.mounted and {m.SetSource, m.SetMountPoint} <= self.done
        return ready and bool(flags & ~layouts.MS_ALLOWED)

    def shown_source(self) -> str:
        """Return what mountinfo should show."""
        if len(self.source) > 255 or ("/" in self.source and self.source != self.image):
            return self.source if self.source == "/typed" and self.source in self.typed else self.image
        return self.source
