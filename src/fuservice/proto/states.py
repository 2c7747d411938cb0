"""Every state and every legal step, in one table, and nothing else.

The table does not know which side it is on: it judges what we send and what we receive. A command takes its step when it
is answered with errno 0; a refused one leaves everything as it was.
"""

from __future__ import annotations

from fuservice.proto import messages as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar, Final


class State:
    """Where a conversation stands. Not an Enum: importing enum costs a third of what the whole mount helper does."""

    __slots__ = ("meaning", "name")
    CONNECTED: ClassVar[State]
    GREETED: ClassVar[State]
    AGREED: ClassVar[State]
    ARGUED: ClassVar[State]
    READY: ClassVar[State]
    MOUNTED: ClassVar[State]
    CLOSED: ClassVar[State]

    def __init__(self, name: str, meaning: str) -> None:
        """*meaning* is what docs/protocol.md, and a refusal, say of the state."""
        self.name, self.meaning = name, meaning

    def __repr__(self) -> str:
        return f"State.{self.name}"


State.CONNECTED = State("CONNECTED", "nothing was said yet")
State.GREETED = State("GREETED", "the helper said hello")
State.AGREED = State("AGREED", "the service chose a version")
State.ARGUED = State("ARGUED", "the argv file was sent")
State.READY = State("READY", "the fuse device was sent: the service commands")
State.MOUNTED = State("MOUNTED", "the mount is attached")
State.CLOSED = State("CLOSED", "the service said goodbye")

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

#: Commands that may succeed once.
ONCE: Final = frozenset((m.SetType, m.SetSource, m.SetMountPoint, m.SetOptions, m.SetMtab))

#: What must have succeeded before a Mount.
BEFORE_MOUNT: Final[Mapping[type[m.Message], str]] = {
    m.SetMountPoint: "missing mount point parameter",
    m.SetSource: "missing mount source parameter",
}


def step(state: State, message: type[m.Message]) -> State | None:
    """Return the next state, or None if *message* is not allowed in *state*."""
    return TRANSITIONS[state].get(message)
