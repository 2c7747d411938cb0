"""The log pipe of a process that we started: read in turns that are bounded, so that whoever shouts keeps nobody waiting."""

from __future__ import annotations

import os
import time

from fuservice.launch.rate import Bucket
from fuservice.launch.words import Words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.launch.loop import Loop
    from fuservice.linux.fds import Fd

_AT_ONCE: Final = 16_384  # bytes of one read
_BURST, _RATE = 16 * _AT_ONCE, 40 * _AT_ONCE  # bytes that are read, and how many more a second: then the pipe fills up
_NEWS_BURST, _NEWS_RATE = 10, 2  # of what a process says of itself: so often it is written down, and so often a second
_MOST_LAST_WORDS: Final = 8  # reads after the end of a process: what a pipe holds, and the end of file


class Voice:
    """Reads *pipe*, which is owned, and says what comes line by line."""

    def __init__(self, loop: Loop, pipe: Fd, say: Callable[[str], None], news: Callable[[], None]) -> None:
        """*news* is called soon after the process has said of itself what was not known yet."""
        os.set_blocking(pipe.fileno(), False)
        self.words = Words()
        self._loop, self._pipe, self._say, self._news = loop, pipe, say, news
        self._bucket = Bucket(_BURST, _RATE)
        self._told = Bucket(_NEWS_BURST, _NEWS_RATE)
        self._paused = False
        self._loop.watch(pipe.fileno(), self.read)

    def read(self) -> None:
        """Say what has come; stop listening for a while where that was too much."""
        now = time.monotonic()
        if not self._bucket.take(now, _AT_ONCE):
            self._loop.forget(self._pipe.fileno())
            self._paused = True
        else:
            self._take(now)
        if self._paused or self.words.suppressed:
            self._loop.tick(self._tick)

    def _take(self, now: float) -> None:
        try:
            data = os.read(self._pipe.fileno(), _AT_ONCE)
        except BlockingIOError:
            return
        for line in self.words.take(data, now):
            self._say(line)
        if self._tell_news(now):
            self._loop.tick(self._tell_news)
        if not data:  # or poll would tell us so for as long as the process lives
            self._close()

    def _tell_news(self, now: float) -> bool:
        """Pass on that the process has told something of itself, but not too often; say whether there is more to pass on."""
        if self.words.changed and self._told.take(now):
            self.words.changed = False
            self._news()
        return self.words.changed

    def _tick(self, now: float) -> bool:
        for line in self.words.count(now):
            self._say(line)
        if self._paused and not self._pipe.closed:
            self._paused = False
            self._loop.watch(self._pipe.fileno(), self.read)
        return bool(self.words.suppressed)

    def end(self) -> None:
        """Say the last words of a process that has ended, and close the pipe: somebody else may hold the other end."""
        now = time.monotonic()
        for _ in range(_MOST_LAST_WORDS):
            if not self._pipe.closed:
                self._take(now)
        if not self._pipe.closed:
            for line in self.words.take(b"", now):
                self._say(line)
            self._close()

    def _close(self) -> None:
        self._loop.forget(self._pipe.fileno())
        self._pipe.close()
