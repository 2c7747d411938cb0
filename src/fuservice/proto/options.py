"""Mount options as text: commas between them, a backslash before what is meant literally, and the words that are flags.

Both ends read the caller's ``-o`` words by these rules, and the helper the server's OPTS (mount.fuse3(8), mount(8)).
"""

from __future__ import annotations

from fuservice.proto import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: Words that set a mount(2) flag, and words that clear one.
SETS: Final[Mapping[str, int]] = {
    "ro": layouts.MS_RDONLY, "nosuid": layouts.MS_NOSUID, "nodev": layouts.MS_NODEV, "noexec": layouts.MS_NOEXEC,
    "sync": layouts.MS_SYNCHRONOUS, "dirsync": layouts.MS_DIRSYNC, "noatime": layouts.MS_NOATIME,
    "nodiratime": layouts.MS_NODIRATIME, "relatime": layouts.MS_RELATIME, "strictatime": layouts.MS_STRICTATIME,
    "nosymfollow": layouts.MS_NOSYMFOLLOW,
}  # fmt: skip
CLEARS: Final[Mapping[str, int]] = {
    "rw": layouts.MS_RDONLY, "suid": layouts.MS_NOSUID, "dev": layouts.MS_NODEV, "exec": layouts.MS_NOEXEC,
    "async": layouts.MS_SYNCHRONOUS, "atime": layouts.MS_NOATIME, "diratime": layouts.MS_NODIRATIME,
    "norelatime": layouts.MS_RELATIME, "nostrictatime": layouts.MS_STRICTATIME, "symfollow": layouts.MS_NOSYMFOLLOW,
}  # fmt: skip


def split(text: str) -> list[tuple[str, str | None]]:
    """Return the options of *text* as pairs of name and value (None where there is no "=")."""
    options: list[str] = []
    option, escaped = "", False
    for character in text:
        if escaped or character not in "\\,":
            option, escaped = option + character, False
        elif character == "\\":
            escaped = True
        else:
            options.append(option)
            option = ""
    pairs = (word.partition("=") for word in (*options, option) if word)
    return [(name, value if equals else None) for name, equals, value in pairs]


def join(name: str, value: str | None) -> str:
    """Return one option as text."""
    return name if value is None else f"{name}={value}"


def apply(flags: int, name: str) -> int:
    """Return mount(2) *flags* after the word *name*, which changes nothing if it is no flag."""
    return (flags | SETS.get(name, 0)) & ~CLEARS.get(name, 0)
