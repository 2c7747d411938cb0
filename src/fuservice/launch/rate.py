"""How often something may happen: a burst, and then so many a second."""

from __future__ import annotations


class Bucket:
    """Tokens: *burst* at the beginning, which is also the most, and *rate* new ones a second."""

    __slots__ = ("_burst", "_rate", "_tokens", "_when")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._tokens, self._when = burst, 0.0

    def take(self, now: float, tokens: float = 1) -> bool:
        """Take *tokens* if they are there at *now* (seconds of a clock that never goes back); say whether they were."""
        self._tokens = min(self._burst, self._tokens + (now - self._when) * self._rate)
        self._when = now
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True
