"""While an image is opened: nothing for a second, and then a sign of life on standard error, which goes away again."""

from __future__ import annotations

import os
import signal
import sys
import time

from fuservice.errors import printable
from fuservice.linux.fds import Closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Final

PATIENCE: Final = 1.0  # seconds without a word
_EVERY: Final = 0.25  # seconds between two looks of the clock on a terminal


class Waiting(Closed):
    """Says that *what* is being opened, once that has taken a second: moving on a terminal, else one line.

    A signal tells the time: the kernel's timer goes to this process alone, not to those that it forks (setitimer(2)).
    """

    def __init__(self, what: str) -> None:
        self._what, self._since, self._shown = printable(what), time.monotonic(), 0
        try:
            self._moving = os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"
            self._width = (os.get_terminal_size(2).columns or 80) if self._moving else 0
        except OSError:
            self._moving = False
        self._before = signal.signal(signal.SIGALRM, self._tell)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, _EVERY if self._moving else 0.0)

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        line = f"fuservice: {self._what}: is being opened"
        if self._moving:
            line = f"{line}, {time.monotonic() - self._since:.0f} s"[: max(self._width - 1, 1)]
            sys.stderr.write("\r" + line)
            sys.stderr.flush()
            self._shown = len(line)
        else:
            sys.stderr.write(f"{line}: this takes longer than usual\n")

    def close(self) -> None:
        """Stop, and leave the terminal's line as it was found."""
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, self._before)
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()
            self._shown = 0
