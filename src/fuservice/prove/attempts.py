"""Every attempt, in the order in which they are made and shown."""

from __future__ import annotations

from fuservice.prove import exhaustion, files, granted, kernel, namespaces, network, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from fuservice.prove.attempt import Attempt

_SUBJECTS: Final = (
    files.FILES,
    granted.GRANTED,
    network.NETWORK,
    processes.PROCESSES,
    namespaces.NAMESPACES,
    kernel.KERNEL,
    exhaustion.EXHAUSTION,
)

ATTEMPTS: Final[Sequence[Attempt]] = tuple(attempt for subject in _SUBJECTS for attempt in subject.attempts)
BY_NAME: Final[Mapping[str, Attempt]] = {attempt.name: attempt for attempt in ATTEMPTS}
