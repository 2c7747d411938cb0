"""Making one attempt in a fresh cage, and judging what came of it."""

from __future__ import annotations

import os
import time

from fuservice.linux.fds import Fd
from fuservice.prove import probe
from fuservice.prove.outside import restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.prove.attempt import Attempt
    from fuservice.prove.ground import Ground
    from fuservice.prove.starts import Served, Start

PATIENCE: Final = 20.0  # seconds for one attempt, on a machine that has other things to do
#: What is as it must be. An attempt that is "absent" had nothing to aim at.
CONTAINED: Final = frozenset({probe.KILLED, probe.REFUSED, probe.BOUNDED, probe.ABSENT})


class Verdict:
    """What came of *attempt*: a word, and what there is to say about it."""

    __slots__ = ("attempt", "detail", "word")

    def __init__(self, attempt: Attempt, word: str, detail: str) -> None:
        self.attempt, self.word, self.detail = attempt, word, detail

    @property
    def contained(self) -> bool:
        """Whether the attempt came to nothing. One that ended in a way that nobody foresaw proves nothing."""
        return self.word in CONTAINED

    def __str__(self) -> str:
        return f"{self.word}{' ' if self.word == probe.KILLED else ': '}{self.detail}" if self.detail else self.word


def judge(attempt: Attempt, start: Start, ground: Ground) -> Verdict:
    """Make *attempt* in a server that *start* starts; blocks until that has ended, or PATIENCE is over."""
    if attempt.floods_log and not start.supervised:
        return Verdict(attempt, probe.ABSENT, "nobody reads the log")
    restore(ground)
    # Opened anew: a lock or a lease that an attempt got is the open file's, and would outlive the attempt with it.
    with Fd(os.open(ground.image_path, os.O_RDONLY | os.O_CLOEXEC)) as image, start.connect() as served:
        said = _converse(served, attempt, ground, image.fileno())
        word, detail = served.ending() if said is None else said.split(" ", 1) if " " in said else (said, "")
        if attempt.floods_log and word == probe.SUCCEEDED and (suppressed := served.suppressed()):
            word, detail = probe.BOUNDED, suppressed
        return Verdict(attempt, word, detail)


def _converse(served: Served, attempt: Attempt, ground: Ground, image: int) -> str | None:
    """Tell the probe its attempt; return what it says of it, None where it ended without a word."""
    socket = served.socket
    socket.deadline = time.monotonic() + PATIENCE
    try:
        socket.send(b"image", image)
        socket.send(ground.text(attempt=attempt.name), ground.fuse)
        tries = socket.receive(probe.ROOM)
        if tries != probe.TRYING:
            return None
        return socket.receive(probe.ROOM).decode() or None
    except (BrokenPipeError, ConnectionResetError):
        return None
    except TimeoutError:
        return f"{probe.BROKEN} no answer within {PATIENCE:g} s"
