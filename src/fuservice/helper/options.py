"""Mount options, parsed once into pairs: what the caller typed, and what a server may set."""

from __future__ import annotations

import errno
import os

from fuservice.errors import RefusalError, shortened
from fuservice.proto import layouts
from fuservice.proto.options import apply, join, split

TYPE_CHECKING = False
if TYPE_CHECKING:
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


def check_kernel_options(raw: bytes, typed: Options, *, may_allow_other: bool, fuseblk: bool) -> dict[str, str | None]:
    """Return what *raw*, a server's OPTS, asks of the kernel, as fsconfig(2) keys and values.

    RefusalError where it asks for what a server may not have: nothing but the four names below ever reaches the kernel.
    """
    options: dict[str, str | None] = {}
    for name, value in split(os.fsdecode(raw)):
        if name in ("allow_other", "allow_root") and value is None and not may_allow_other:
            raise RefusalError(
                errno.EPERM, f"option {name} only allowed if 'user_allow_other' is set in /etc/fuse.conf"
            )
        if name == "default_permissions" and value is None:
            options[name] = None
        elif name == "allow_other" and value is None:
            if "allow_other" not in typed and "allow_root" not in typed:
                sentence = "the fuse server asks for allow_other, which was not typed: add -o allow_other"
                raise RefusalError(errno.EPERM, sentence)
            options[name] = None
        elif name == "max_read":
            options[name] = _number(name, value, 1, (1 << 32) - 1)
        elif name == "blksize" and fuseblk:
            options[name] = _number(name, value, 512, 65_536)
        else:
            raise _not_theirs("mount", name, value)
    return options


def check_mtab_options(raw: bytes, typed: Options) -> bytes:
    """Return *raw*, a server's MTAB; RefusalError(EINVAL) where it holds more than notes for userspace.

    mount(8) acts on some of what it is to write down (``X-mount.owner``, ``loop``), with root's rights, and ``user=`` says
    who may unmount: so the former is not passed on, and the latter must be the caller's own word.
    """
    for name, value in split(os.fsdecode(raw)):
        note = name.startswith("x-") and not name.startswith("x-mount.")
        if not (note or name in ("-n", "nofail") or (name == "user" and (name, value) in typed.pairs)):
            raise _not_theirs("mtab", name, value)
    return raw


def _not_theirs(what: str, name: str, value: str | None) -> RefusalError:
    option = shortened(join(name, value))
    return RefusalError(errno.EINVAL, f"{what} option `{option}' is not one that a fuse server may set")


def _number(name: str, value: str | None, least: int, most: int) -> str:
    number = int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 12 else -1
    if not least <= number <= most:
        option = shortened(join(name, value))
        raise RefusalError(errno.EINVAL, f"mount option `{option}': expected a number, {least} to {most}")
    return str(number)  # the kernel would read a leading 0 as octal
