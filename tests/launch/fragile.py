"""A driver that does not survive a fork: it knows the process that imported it."""

from __future__ import annotations

import os

IMPORTED_BY = os.getpid()


def serve() -> int:
    """Say on the connection whether this is the process that imported it."""
    os.write(3, b"same process" if os.getpid() == IMPORTED_BY else b"forked")
    return 0
