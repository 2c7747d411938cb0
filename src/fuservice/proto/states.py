"""Every state and every legal step, in one table, and nothing else.

The table does not know which side it is on: it judges what we send and what we receive. A command takes its step when it
is answered with errno 0; a refused one leaves everything as it was.
"""

from __future__ import annotations

from enum import Enum

from fuservice.proto import messages as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final


class State(Enum):
    """Where a conversation stands; the value is what docs/protocol.md says of it."""

    CONNECTED = "nothing was said yet"
    GREETED = "the helper said hello"
    AGREED = "the service chose a version"
    ARGUED = "the argv file was sent"
    READY = "the fuse device was sent: the service commands"
    MOUNTED = "the mount is attached"
    CLOSED = "the service said goodbye"


TRANSITIONS: Final[Mapping[State, Mapping[type[m.Message], State]]] = {
    State.CONNECTED: {m.Hello: State.GREETED},
    State.GREETED:   {m.HelloReply: State.AGREED},
    State.AGREED:    {m.File: State.ARGUED},
    State.ARGUED:    {m.File: State.READY},
    State.READY:     {m.Open: State.READY, m.OpenBlockDevice: State.READY, m.SetType: State.READY, m.SetSource: State.READY,
                      m.SetMountPoint: State.READY, m.SetOptions: State.READY, m.SetMtab: State.READY,
                      m.Mount: State.MOUNTED, m.Goodbye: State.CLOSED},
    State.MOUNTED:   {m.Goodbye: State.CLOSED},
    State.CLOSED:    {},
}  # fmt: skip

#: Commands that may succeed once; the words libfuse's helper has for the second.
ONCE: Final[Mapping[type[m.Message], str]] = {
    m.SetType: "fsopen command respecified",
    m.SetSource: "mount source respecified!",
    m.SetMountPoint: "mount point respecified!",
    m.SetOptions: "mount options respecified!",
    m.SetMtab: "mtab options respecified!",
}

#: What must have succeeded before a Mount.
BEFORE_MOUNT: Final[Mapping[type[m.Message], str]] = {
    m.SetSource: "missing mount source parameter",
    m.SetMountPoint: "missing mount point parameter",
}


def step(state: State, message: type[m.Message]) -> State | None:
    """Return the next state, or None if *message* is not allowed in *state*."""
    return TRANSITIONS[state].get(message)
