"""Waiting for a child with a bound; it is not reaped, so its pid stays its own."""

from __future__ import annotations

import os
import select

from fuservice.linux.fds import Fd


def ends_within(pid: int, seconds: float) -> bool:
    """Say whether our child *pid*, which nobody has reaped, has ended within *seconds*; blocks for no longer."""
    with Fd(os.pidfd_open(pid)) as child:
        poll = select.poll()
        poll.register(child.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))
