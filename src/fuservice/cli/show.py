"""How rows are shown: a table with a bold head on a terminal, and fields with tabs between them everywhere else.

No colour and no alignment where nobody sees them; none either for those who do not want them (NO_COLOR, no-color.org), and
whole sentences for those who have the screen read to them (``--plain``, or TERM=dumb).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BOLD, RED, GREEN = "1", "31", "32"  # ECMA-48, select graphic rendition


def on_terminal() -> bool:
    """Say whether standard output is a terminal that can show a table."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def wants_sentences(*, plain: bool) -> bool:
    """Say whether whole sentences are wanted: *plain* was typed, or the terminal is no screen."""
    return plain or (sys.stdout.isatty() and not on_terminal())


def coloured(text: str, colour: str) -> str:
    """Return *text* in a *colour*, if there is a terminal to show it and nobody minds."""
    if on_terminal() and not os.environ.get("NO_COLOR"):
        return f"\x1b[{colour}m{text}\x1b[0m"
    return text


def printable(value: object) -> str:
    """Return *value* for a field: "-" where it is not known, and nothing that could move the cursor."""
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the head and the *rows* as lines."""
    words = [list(columns), *([printable(value) for value in row] for row in rows)]
    if not on_terminal():
        return ["\t".join(row) for row in words]
    widths = [max(len(row[place]) for row in words) for place in range(len(columns))]
    head, *rest = [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in words
    ]
    return [coloured(head, BOLD), *rest]
