"""Whether a server may be followed by another one when it dies (``fuservice mount --restart``)."""

from __future__ import annotations

import os
import re

from fuservice.drivers import catalog
from fuservice.errors import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

OLDEST: Final = (6, 9)  # FUSE_NOTIFY_RESEND


def check(source: str, kind: str) -> None:
    """PolicyError where the kernel, or the driver of type *kind*, cannot do that."""
    release = os.uname().release
    version = re.match(r"(\d+)\.(\d+)", release)
    if version is not None and (int(version[1]), int(version[2])) < OLDEST:
        raise PolicyError(f"{source}: --restart needs Linux 6.9, this is {release}: leave it out")
    if not catalog.find(kind).restartable:
        raise PolicyError(
            f"{source}: --restart: a server of {kind} cannot go on where another one has died: leave it out"
        )
