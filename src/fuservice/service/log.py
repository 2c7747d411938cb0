"""Where a service writes: its standard error, which is a log. Line by line, escaped: the words may be the image's."""

from __future__ import annotations

import os
from contextlib import suppress

from fuservice.errors import printable


def log(sentence: str) -> None:
    """Write one line; a log that is gone or full is no reason to fail."""
    with suppress(OSError):
        os.write(2, (printable(sentence) + "\n").encode())
