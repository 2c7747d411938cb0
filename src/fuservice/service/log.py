"""Where a service writes: its standard error, which is a log. Line by line, escaped: the words may be the image's."""

from __future__ import annotations

import os
from contextlib import suppress

from fuservice.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Set where `fuservice listen` reads the log, and takes such lines for the state that `fuservice list` shows.
TAKES_STATUS: Final = "FUSERVICE_STATUS"
_LONGEST_VALUE: Final = 100


def log(sentence: str) -> None:
    """Write one line; a log that is gone or full is no reason to fail."""
    with suppress(OSError):
        os.write(2, (printable(sentence) + "\n").encode())


def status(**facts: str | int) -> None:
    """Say how this server is, to the listener that started it; nothing elsewhere.

    The line may have 512 bytes (launch/words.py); values are cut after 100 characters.
    """
    if TAKES_STATUS in os.environ:
        words = " ".join(f"{key}={_word(str(value))}" for key, value in facts.items())
        with suppress(OSError):
            os.write(2, f"\x01status {words}\n".encode())


def _word(value: str) -> str:
    """Return *value* as one printable word: what is not is shown byte by byte, as \\NNN."""
    return "".join(c if c.isprintable() and c not in "\\ " else _octal(c) for c in value)[:_LONGEST_VALUE]


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
