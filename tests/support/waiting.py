"""Waiting is always on a predicate and always with a bound."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

SIGN_OF_LIFE = re.compile(r"^fuservice: .*: is being opened: this takes longer than usual\n", re.MULTILINE)


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


def without_signs_of_life(stderr: str) -> str:
    """Return what a program has complained of, less the line that comes where opening takes long: on a busy machine, at any time."""
    return SIGN_OF_LIFE.sub("", stderr)
