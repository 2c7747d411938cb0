"""What a server writes into its log: whole lines, no more of them than anybody wants to read, and its state.

The words are hostile. A line ``\\x01status key=value …`` is not logged: it says how the server is.
"""

from __future__ import annotations

from fuservice.errors import printable
from fuservice.launch.rate import Bucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LONGEST_LINE: Final = 2_000  # bytes, of which people see the first 200 characters
BURST, RATE = 50, 10  # lines, and how many more a second
STATUS: Final = b"\x01status "
LONGEST_STATUS: Final = 512  # bytes of the line
MOST_FACTS: Final = 32
LONGEST_KEY: Final = 32
_KEY: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_ONCE_IN: Final = 1.0  # seconds between two counts of suppressed lines


class Words:
    """The words of one server, bytes in, lines out. ``status`` is what it says of itself, ``changed`` whether that is news."""

    __slots__ = ("_bucket", "_rest", "_told_at", "changed", "status", "suppressed")

    def __init__(self) -> None:
        self._bucket = Bucket(BURST, RATE)
        self._rest = b""  # the beginning of a line that is not complete yet
        self._told_at = 0.0
        self.suppressed = 0
        self.status: dict[str, str] = {}
        self.changed = False

    def take(self, data: bytes, now: float) -> list[str]:
        """Return the lines to log, now that *data* has come; b"" is the end of it."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        told = [word for line in lines if line and not self._is_status(line) for word in self._line(line, now)]
        return told if data else [*told, *self._count(now)]

    def _line(self, line: bytes, now: float) -> list[str]:
        if not self._bucket.take(now):
            self.suppressed += 1
            return []
        return [*self.count(now), printable(line)]

    def count(self, now: float) -> list[str]:
        """Say how many lines were suppressed, if there are any, and once in a second at most."""
        return self._count(now) if now - self._told_at >= _ONCE_IN else []

    def _count(self, now: float) -> list[str]:
        if not self.suppressed:
            return []
        told, self.suppressed, self._told_at = self.suppressed, 0, now
        return [f"{told} lines suppressed"]

    def _is_status(self, line: bytes) -> bool:
        """Take over what *line* says if it is a status as it should be: else it is a line like others."""
        if not line.startswith(STATUS) or len(line) > LONGEST_STATUS:
            return False
        facts = parse_status(line[len(STATUS) :])
        if facts is None or len(self.status | facts) > MOST_FACTS:
            return False
        self.changed = self.changed or self.status | facts != self.status
        self.status |= facts
        return True


def parse_status(text: bytes) -> dict[str, str] | None:
    """Return the facts in *text*, words of the form key=value with printable values; None where it is none."""
    facts = {}
    for word in text.decode("utf-8", "replace").split(" "):
        key, equals, value = word.partition("=")
        if not (equals and 1 <= len(key) <= LONGEST_KEY and _KEY.issuperset(key) and value.isprintable()):
            return None
        facts[key] = value
    return facts
