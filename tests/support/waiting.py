"""Waiting is always on a predicate and always with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable


def holds_within(seconds: float, predicate: Callable[[], object], step: float = 0.005) -> bool:
    """Return True as soon as *predicate* is true, False when it was not within *seconds*."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() >= deadline:
            return False
        time.sleep(step)
    return True


def wait_until(predicate: Callable[[], object], what: str, seconds: float = 5.0) -> None:
    """Return as soon as *predicate* is true; fail the test, naming *what*, when it is not within *seconds*."""
    if not holds_within(seconds, predicate):
        raise AssertionError(f"waited {seconds:g} s in vain: {what}")
