"""How a caged process comes to be, for a probe as for a driver: one class for each way of starting."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fuservice.linux.sockets import SeqPacket


class Served:
    """A probe in its cage, and our end of its connection. Leaving the context ends it."""

    socket: SeqPacket
    pid: int  # as it is seen from here

    def ending(self) -> tuple[str, str]:
        """Return a word for how it ended without one of its own, and the detail. Blocks until it has ended."""
        raise NotImplementedError

    def suppressed(self) -> str | None:
        """Return what was said of lines of its log that nobody is shown, None where nothing was. May block for a while."""
        raise NotImplementedError

    def end(self) -> None:
        """End it, if it has not, and leave nothing of it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.end()


class Start:
    """A way of starting. Leaving the context ends what it keeps running."""

    #: Whether somebody reads the servers' logs, and judges how much of them anybody wants to see.
    supervised = True

    def connect(self) -> Served:
        """Return a fresh probe, in a cage of its own. FuserviceError where there will be none."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()
