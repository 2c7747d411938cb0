"""How a caged process comes to be, for a probe as for a driver: one class for each way of starting."""

from __future__ import annotations

from fuservice.linux.fds import Closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.linux.sockets import SeqPacket


class Served(Closed):
    """A probe in its cage, and our end of its connection. Leaving the context ends it."""

    socket: SeqPacket
    pid: int  # as it is seen from here

    def ending(self) -> tuple[str, str]:
        """Return a word for how it ended without one of its own, and the detail. Blocks until it has ended."""
        raise NotImplementedError

    def suppressed(self) -> str | None:
        """Return what was said of lines of its log that nobody is shown, None where nothing was. May block for a while."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, if it has not, and leave nothing of it."""
        raise NotImplementedError


class Start(Closed):
    """A way of starting. Leaving the context ends what it keeps running."""

    #: Whether somebody reads the servers' logs, and judges how much of them anybody wants to see.
    supervised = True

    def connect(self) -> Served:
        """Return a fresh probe, in a cage of its own. FuserviceError where there will be none."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing of it."""
