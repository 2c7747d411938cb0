"""The proof: every attempt, each in a fresh cage, one after the other."""

from __future__ import annotations

from fuservice.prove.attempts import ATTEMPTS
from fuservice.prove.outside import ground
from fuservice.prove.verdict import judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fuservice.prove.attempt import Attempt
    from fuservice.prove.starts import Start
    from fuservice.prove.verdict import Verdict


def prove(start: Start, attempts: Sequence[Attempt] = ATTEMPTS) -> Iterator[Verdict]:
    """Make *attempts* in servers that *start* starts, with another server beside them; yield what came of each.

    FuserviceError and OSError where an attempt cannot be made.
    """
    with ground() as here, start.connect() as other:
        here.server = other.pid
        for attempt in attempts:
            yield judge(attempt, start, here)
