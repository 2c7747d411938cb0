"""File descriptors with one owner each.

Whoever receives a descriptor owns it at once, before anything can fail; giving it away is a visible verb
(:meth:`Fd.take`); dropping one without closing it warns, and warnings fail tests.
"""

from __future__ import annotations

import os
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Closed:
    """What is closed when its ``with`` ends. Its ``close`` may be called twice."""

    __slots__ = ()

    def close(self) -> None:
        """Let go of what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class Fd(Closed):
    """A file descriptor that is closed exactly once, by whoever owns it."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = -1  # so __del__ is safe even if what follows raises
        if fd < 0:
            raise ValueError(f"not a file descriptor: {fd}")
        self._fd = fd

    def __repr__(self) -> str:
        return f"Fd({self._fd})" if self._fd >= 0 else "Fd(closed)"

    def fileno(self) -> int:
        """Return the number, which stays ours; ValueError once it was closed or taken."""
        if self._fd < 0:
            raise ValueError("descriptor is closed")
        return self._fd

    def take(self) -> int:
        """Give the descriptor away: the caller closes it, this object no longer does."""
        fd, self._fd = self.fileno(), -1
        return fd

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._fd >= 0:
            os.close(self.take())

    @property
    def closed(self) -> bool:
        """Whether it was closed or taken."""
        return self._fd < 0

    def __del__(self) -> None:
        if self._fd >= 0:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
            self.close()
