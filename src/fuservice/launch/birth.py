"""A connection on its way to a server, and all that the server will get."""

from __future__ import annotations

import os

from fuservice.linux.channel import Channel
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.linux.sockets import SeqPacket


class Birth:
    """Owns the connection; and, once it is prepared, both ends of the log and of the hand-over socket."""

    __slots__ = ("_theirs", "attempts", "caller", "connection", "handover", "log", "name", "since", "trial")

    def __init__(self, name: str, caller: int, connection: SeqPacket, *, trial: bool = False) -> None:
        """*caller*: the uid of who connected. *trial*: nobody did, and the server ends as soon as it is in its cage."""
        self.name, self.caller, self.connection, self.trial = name, caller, connection, trial
        self.attempts = 0
        self.since = 0.0  # when it was sent to the warm process
        self.log: Fd | None = None
        self.handover: Channel | None = None
        self._theirs: tuple[Fd, ...] = ()

    def prepare(self) -> None:
        """Make log and hand-over for the server; OSError where there are no descriptors left. A second call does nothing."""
        if self.log is None:
            reading, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
            self.log, self._theirs = reading, (writing,)
            self.handover, end = Channel.pair()
            self._theirs = (writing, end)

    def descriptors(self) -> list[int]:
        """Return what goes to the server: connection, log, hand-over."""
        return [self.connection.fileno(), *(fd.fileno() for fd in self._theirs)]

    def leave(self) -> tuple[Fd, Channel]:
        """Close what is the server's own now; return our ends of log and hand-over, which are the caller's from now on."""
        assert self.log is not None and self.handover is not None
        self.connection.close()
        for fd in self._theirs:
            fd.close()
        return self.log, self.handover

    def give_up(self) -> None:
        """Close everything: whoever connected sees the end of file."""
        for ours in (self.connection, self.log, self.handover, *self._theirs):
            if ours is not None:
                ours.close()
