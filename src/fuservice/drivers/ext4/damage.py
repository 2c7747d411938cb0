"""How damage is told: one exception for the object that is damaged, never for the whole mount.

Whatever an image says that cannot be true becomes the OSError of :func:`damaged`; the driver's caller answers EIO for
that object and serves the rest. (The kernel says EUCLEAN, "Structure needs cleaning", which few programs know.)
"""

from __future__ import annotations

import errno


def damaged(what: str) -> OSError:
    """Return the error for an object that cannot be as the image describes it; *what* is one line for the log."""
    return OSError(errno.EIO, what)


def wrong_checksum(what: str) -> OSError:
    """Return the error for *what* (inode and block) whose bytes are not those that were written."""
    return damaged(f"{what}: its checksum is wrong")
