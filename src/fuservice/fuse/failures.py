"""What a failed request is answered, and what the log says about it: each failure once, and not without end.

Rule: a driver's OSError is its answer, and a budget that is used up (an OSError too) is worth one line. Anything else (RecursionError and MemoryError too) is a bug of the driver or a
hostile image: EIO for that request, one line with the path, and the mount lives on.
"""

from __future__ import annotations

import errno

from fuservice.errors import FuserviceError, printable
from fuservice.fuse.abi import OP_NAMES
from fuservice.fuse.budget import BudgetError
from fuservice.fuse.codec import BadAnswerError, MalformedRequestError, errno_of, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.fuse.nodes import Nodes

#: So many different failures are logged; a damaged image may hold millions.
MOST_LINES = 200
#: The errnos by which a driver says that the image is damaged: worth a line, unlike ENOENT.
DAMAGE = frozenset((errno.EIO, errno.EUCLEAN, errno.EBADMSG))


class UnsupportedKernelError(MalformedRequestError):
    """The kernel speaks a version of the protocol that we do not: the session ends."""


def answer_to(error: Exception) -> int:
    """Return the errno with which a request that raised *error* is answered."""
    if isinstance(error, OSError):
        return errno_of(error) or errno.EIO
    if isinstance(error, UnsupportedKernelError):
        return errno.EPROTO
    return errno.EINVAL if isinstance(error, MalformedRequestError) else errno.EIO


def _reason(error: Exception) -> str:
    """Say what happened; for a bug, with the line that raised it."""
    if isinstance(error, (BadAnswerError, FuserviceError)) or (isinstance(error, OSError) and errno_of(error)):
        return str(error)
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    at = f" ({where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno})" if where else ""
    return f"{shown(error)}{at}"


class Failures:
    """Decides which failures are logged. The log function may fail: a broken log pipe is no reason to die."""

    __slots__ = ("_log", "_nodes", "_seen")

    def __init__(self, log: Callable[[str], None], nodes: Nodes) -> None:
        self._log, self._nodes = log, nodes
        self._seen: set[tuple[int, int, bytes]] = set()

    def note(self, opcode: int, node: int, name: bytes, error: Exception) -> None:
        """Log *error*, met at *name* in *node*, unless it is an ordinary answer or was logged for this place and operation.

        A budget is logged once, at whatever place.
        """
        key = (opcode, node, name)
        if isinstance(error, BudgetError):
            key = (0, 0, error.budget.encode())
        elif isinstance(error, OSError) and errno_of(error) and error.errno not in DAMAGE:
            return
        if key in self._seen or len(self._seen) > MOST_LINES:
            return
        self._seen.add(key)
        try:
            self._tell(opcode, self._nodes.path(node, name), error)
        except MemoryError:
            return  # the line is lost, but whoever asked still gets an answer

    def _tell(self, opcode: int, path: bytes, error: Exception) -> None:
        if len(self._seen) > MOST_LINES:
            self.say(f"{MOST_LINES} different requests have failed; further failures are not logged")
        else:
            operation = OP_NAMES.get(opcode, f"opcode {opcode}")
            self.say(f"{operation} {printable(path)}: {printable(_reason(error))}")

    def say(self, line: str) -> None:
        """Log *line*."""
        try:
            self._log(line)
        except (OSError, ValueError):  # whoever read the log is gone, or the file is closed
            return
