"""What the helper says where its service failed, in the words that libfuse's has too."""

from __future__ import annotations

import re

_SEE = re.compile(r", see the log of `fuservice listen' \(process \d+\)$", re.MULTILINE)


def plain(said: str) -> str:
    """Return *said* without where to read on: the log of a listener of ours, by its number."""
    return _SEE.sub(".", said)
