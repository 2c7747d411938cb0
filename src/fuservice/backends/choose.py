"""Which back end is taken: the one that was asked for, or the first that can be used here."""

from __future__ import annotations

from fuservice.backends.backend import NAMES, Backend
from fuservice.backends.broker import Broker
from fuservice.backends.fusermount import Fusermount
from fuservice.backends.namespace import Namespace
from fuservice.backends.root import Root
from fuservice.errors import PolicyError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

#: In the order of preference: whoever may mount asks nobody else. ``namespace`` is never chosen, since nobody but those who
#: are in the namespace would see the mount.
BY_ITSELF: Final[Sequence[type[Backend]]] = (Root, Fusermount, Broker)
ALL: Final[Sequence[type[Backend]]] = (*BY_ITSELF, Namespace)


def choose(via: str | None = None) -> Backend:
    """Return the back end called *via*, or else the first that can be used here.

    UsageError where *via* is no name of one; PolicyError with the reason of each where none can be used.
    """
    if via is not None:
        return _forced(via)
    reasons = {}
    for kind in BY_ITSELF:
        backend = kind()
        reason = backend.why_not()
        if reason is None:
            return backend
        reasons[backend.name] = reason
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise PolicyError(f"there is nobody here who may mount for you: {told}; {way_out()}")


def way_out() -> str:
    """Return what there is to do where no back end of :data:`BY_ITSELF` can be used."""
    private = Namespace().why_not()
    if private is None:
        return (
            "but `fuservice run' mounts for one command, and `fuservice mount --private' where `fuservice enter' leads"
        )
    return f"nor is there a namespace to mount in: {private}; ask for fusermount3 (package fuse3), user namespaces, or fuserviced"


def _forced(via: str) -> Backend:
    for kind in ALL:
        if kind.name == via:
            backend = kind()
            if reason := backend.why_not():
                raise PolicyError(f"--via={via}: {reason}")
            return backend
    raise UsageError(f"--via={via}: expected one of {', '.join(NAMES)}")
