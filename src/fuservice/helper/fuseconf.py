"""/etc/fuse.conf: what the administrator allows ordinary users (mount.fuse3(8)). Read as libfuse reads it, errors with line numbers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

PATH: Final = "/etc/fuse.conf"
DEFAULT_MOUNT_MAX: Final = 1_000
NO_LIMIT: Final = -1
LONGEST_LINE: Final = 255  # bytes, with the newline
LARGEST_FILE: Final = 1 << 16
_DIGITS: Final = {8: "01234567", 10: "0123456789", 16: "0123456789abcdef"}


class FuseConf:
    """What the file says; the defaults are those of a file that says nothing."""

    def __init__(self) -> None:
        self.user_allow_other = False
        self.mount_max = DEFAULT_MOUNT_MAX


def parse(text: bytes, say: Callable[[str], None], path: str = PATH) -> FuseConf:
    """Return what *text* says; each line that says nothing we know is told to *say*, and passed over."""
    conf = FuseConf()
    *lines, rest = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        if len(line) >= LONGEST_LINE:
            say(f"reading {path}: line {number} too long")
        else:
            _line(conf, line.partition(b"#")[0].strip().decode("utf-8", "backslashreplace"), number, path, say)
    if rest:
        # libfuse does not read it either: half a line may be half a number.
        say(f"reading {path}: missing newline at end of file")
    return conf


def _line(conf: FuseConf, line: str, number: int, path: str, say: Callable[[str], None]) -> None:
    name, equals, value = (word.strip() for word in line.partition("="))
    if line == "user_allow_other":
        conf.user_allow_other = True
    elif name == "mount_max" and equals:
        limit = leading_integer(value)
        if limit is None or limit < NO_LIMIT:
            say(f"invalid mount_max = {value} in {path} at line {number}")
        else:
            conf.mount_max = limit
    elif line:
        say(f"unknown parameter in {path} at line {number}: '{line}'")


def leading_integer(text: str) -> int | None:
    """Return the integer that *text* begins with, as scanf's %i reads it (0x: hexadecimal, 0: octal), or None."""
    sign = -1 if text[:1] == "-" else 1
    digits = text[1:] if text[:1] in ("-", "+") else text
    base = 16 if digits[:2].lower() == "0x" else 8 if digits[:1] == "0" else 10
    digits = digits[2:] if base == 16 else digits
    end = 0
    while end < min(len(digits), 18) and digits[end].lower() in _DIGITS[base]:
        end += 1
    return sign * int(digits[:end], base) if end else None


def read(say: Callable[[str], None], path: str = PATH) -> FuseConf:
    """Return what the file at *path* says; the defaults, without a word, where there is none."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return parse(file.read(LARGEST_FILE), say, path)
    except FileNotFoundError:
        return FuseConf()
    except OSError as error:
        say(f"reading {path}: {error.strerror}")
        return FuseConf()
