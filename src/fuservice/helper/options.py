"""Mount options, parsed once into pairs: what the caller typed, and what a server may set."""

from __future__ import annotations

import errno
import os

from fuservice.errors import RefusalError, shortened
from fuservice.proto import layouts
from fuservice.proto.options import apply, join, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

#: What the caller's own words decide, whatever the server says: bits that protect the caller.
_DECIDED_HERE: Final = (
    layouts.MS_RDONLY | layouts.MS_NOSUID | layouts.MS_NODEV | layouts.MS_NOEXEC | layouts.MS_NOSYMFOLLOW
)


class Options:
    """What the caller typed after ``-o``, all of it, in order."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str | None]] = []

    def add(self, text: str) -> None:
        """Append the options of one ``-o`` word."""
        self.pairs += split(text)

    def __contains__(self, name: str) -> bool:
        return any(name == typed for typed, _ in self.pairs)

    def value(self, name: str) -> str | None:
        """Return the last value typed for *name*."""
        return next((value for typed, value in reversed(self.pairs) if typed == name), None)

    @property
    def restrictions(self) -> int:
        """MS_ bits that the mount gets whatever the server says: nosuid and nodev, and what the caller typed."""
        flags = layouts.MS_NOSUID | layouts.MS_NODEV
        for name, _ in self.pairs:
            flags = apply(flags, name)
        return flags & _DECIDED_HERE

    @property
    def read_only(self) -> bool:
        """Whether the caller typed ro, and not rw after it."""
        return bool(self.restrictions & layouts.MS_RDONLY)


class KernelOptions:
    """What a server asked of the kernel's fuse, checked: nothing but these five ever reaches fsconfig(2)."""

    def __init__(self) -> None:
        self.default_permissions = self.allow_other = False
        self.max_read: int | None = None
        self.blksize: int | None = None

    def pairs(self) -> Iterable[tuple[str, str | None]]:
        """Yield them as fsconfig(2) keys and values."""
        if self.default_permissions:
            yield "default_permissions", None
        if self.allow_other:
            yield "allow_other", None
        if self.max_read is not None:
            yield "max_read", str(self.max_read)
        if self.blksize is not None:
            yield "blksize", str(self.blksize)


def check_kernel_options(raw: bytes, typed: Options, *, may_allow_other: bool, fuseblk: bool) -> KernelOptions:
    """Return what *raw*, a server's OPTS, asks for; RefusalError where it asks for what a server may not have."""
    options = KernelOptions()
    for name, value in split(os.fsdecode(raw)):
        if name == "default_permissions" and value is None:
            options.default_permissions = True
        elif name in ("allow_other", "allow_root") and value is None and not may_allow_other:
            raise RefusalError(
                errno.EPERM, f"option {name} only allowed if 'user_allow_other' is set in /etc/fuse.conf"
            )
        elif name == "allow_other" and value is None:
            _check_typed(typed)
            options.allow_other = True
        elif name == "max_read":
            options.max_read = _number(name, value, 1, (1 << 32) - 1)
        elif name == "blksize" and fuseblk:
            options.blksize = _number(name, value, 512, 65_536)
        else:
            raise RefusalError(
                errno.EINVAL, f"mount option `{shortened(join(name, value))}' is not one that a fuse server may set"
            )
    return options


def _check_typed(typed: Options) -> None:
    if "allow_other" not in typed and "allow_root" not in typed:
        raise RefusalError(errno.EPERM, "the fuse server asks for allow_other, which was not typed: add -o allow_other")


def check_mtab_options(raw: bytes, typed: Options) -> bytes:
    """Return *raw*, a server's MTAB; RefusalError(EINVAL) where it holds more than notes for userspace.

    mount(8) acts on some of what it is to write down (``X-mount.owner``, ``loop``), with root's rights, and ``user=`` says
    who may unmount: so the former is not passed on, and the latter must be the caller's own word.
    """
    for name, value in split(os.fsdecode(raw)):
        note = name.startswith("x-") and not name.startswith("x-mount.")
        if not (note or name in ("-n", "nofail") or (name == "user" and (name, value) in typed.pairs)):
            raise RefusalError(
                errno.EINVAL, f"mtab option `{shortened(join(name, value))}' is not one that a fuse server may set"
            )
    return raw


def _number(name: str, value: str | None, least: int, most: int) -> int:
    number = int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 12 else -1
    if not least <= number <= most:
        raise RefusalError(
            errno.EINVAL, f"mount option `{shortened(join(name, value))}': expected a number, {least} to {most}"
        )
    return number
