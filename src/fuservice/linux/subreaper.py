"""prctl(2) for who gets orphans: a process may take the place of init for its own descendants."""

from __future__ import annotations

from fuservice.linux import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they can be waited for. Children do not inherit it."""
    prctl.prctl(PR_SET_CHILD_SUBREAPER, 1)
