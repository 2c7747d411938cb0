"""What is done when a mount with a direct server is over, whoever ended it.

It is detached if it is there and dead; the directory goes that was made for it; and in its receipt is written why it ended. What
that takes is imported then: those who wait for the end, or mount, have no use for it.
"""

from __future__ import annotations

import os
from functools import partial

from fuservice.launch.dead import detach_dead, device_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.backends.backend import Backend
    from fuservice.launch.guard import Ended


def last_words(mount_point: str | None, receipt: int | None, *, here: bool = True) -> dict[str, str]:
    """Return what the helper tells the guard when it leaves: what was mounted where, and the number of its receipt.

    *here*: in our mount namespace.
    """
    if mount_point is None:
        return {}
    words = {"mount point": os.path.abspath(mount_point)}  # noqa: PTH100
    if here:
        words["device"] = device_at(mount_point)
    return words if receipt is None else {**words, "receipt": str(receipt)}


class Afterwards:
    """Called by the guard of a direct start (``launch.guard``), a copy of the helper that waits for the end."""

    def __init__(self, backend: Backend | None = None) -> None:
        """*backend* has attached the mount, and detaches it; without one, our own rights do."""
        self._backend = None if backend is None or backend.name == "root" else backend

    def __call__(self, ended: Ended, say: Callable[[str], None]) -> None:
        """Tidy up after *ended*; *say* takes a line for the log."""
        from fuservice.cli import made
        from fuservice.launch import receipts
        from fuservice.launch.state import States, directory

        unmount = None if self._backend is None else partial(self._backend.detach, lazy=True)
        detached = detach_dead(ended.device, say, unmount) if ended.device else []
        reason = _reason(ended.why, detached)
        for place in detached:
            say(f"{place}: detached: {reason}")
        made.remove(ended.facts.get("mount point", ""))
        States(directory())  # which forgets what a supervisor who was killed had recorded of his server
        if receipt := ended.facts.get("receipt"):
            receipts.ended(int(receipt), reason)


def tidy(device: str, why: str, say: Callable[[str], None]) -> None:
    """Tidy up after a server that somebody else had asked for (``launch.tidier``): detach its mounts, if it has left any.

    What was made and written down for them by the user that we are, goes and is written on. *say* takes a line for the log.
    """
    from fuservice.cli import made, mine
    from fuservice.launch import receipts

    known = mine.open_receipts()
    for place in detach_dead(device, say, None if os.geteuid() == 0 else _unmount):
        reason = _reason(why, [place])
        say(f"{place}: detached: {reason}")
        made.remove(place)
        for number, facts in known.items():
            if (facts.get("mount point"), facts.get("device")) == (place, device):
                receipts.ended(number, reason)


def _unmount(path: str) -> None:
    """Unmount for a user without rights, by whoever may unmount here."""
    from fuservice.backends.choose import choose  # when it comes to that, and not before

    choose().detach(path, lazy=True)


def _reason(why: str, detached: list[str]) -> str:
    """Return why a mount has ended, for people."""
    from fuservice.launch.receipts import UNMOUNTED

    if why:
        return f"its server died: {why}"
    return "its connection was aborted" if detached else UNMOUNTED
