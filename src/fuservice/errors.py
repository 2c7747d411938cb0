"""One tree of exceptions: each class holds its exit code, each instance its sentence.

Three failures are never mixed (docs/design.md, "Three failures"):

* ours: a bug. ``LocalProtocolError``, or anything that is not a ``FuserviceError``: it shows a traceback;
* theirs: ``RemoteProtocolError`` and ``PeerGoneError``: the conversation ends, one line;
* refused: ``RefusalError``: a well-formed request that we will not do. It becomes an errno in a reply, and the conversation
  goes on.

Libraries raise these; only ``cli`` turns them into words and exit codes.
"""

from __future__ import annotations

import os
from errno import EIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

#: Exit codes of every program of the project. ``NO_SERVICE`` is said by us alone, never on a server's word.
EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_NO_SERVICE = 2
EXIT_USAGE = 64  # EX_USAGE, sysexits.h: the commands of fuservice(1)
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_LEFT = 99  # of a unit's main process: its server died, and left a mount
EXIT_BUG = 70  # EX_SOFTWARE: a server process ended by an exception that nobody foresaw
# What shells and env(1) say of a command: it cannot be executed, it is not there, and a signal ended it.
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL = 128  # and the signal's number

LONGEST_WORD = 200  # characters of a peer's that reach a terminal
LONGEST_SENTENCE = 1_000  # characters of ours, paths that the caller typed among them


def printable(text: str | bytes, longest: int = LONGEST_WORD) -> str:
    """Return *text* safe for a terminal or a log line: printable, one line, cut after *longest* characters.

    Everything that is not printable (control characters, escape sequences, bytes that are not UTF-8, bidirectional
    controls) is shown as a backslash escape, so a peer's words cannot move the cursor or forge a line.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    cut = text[:longest]
    shown = "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in cut)
    return shown if cut == text and len(shown) <= longest else shown[:longest] + "…"


def shortened(word: str) -> str:
    """Return a peer's *word* cut after 200 characters, for a sentence of ours; printing it makes it printable."""
    return word if len(word) <= LONGEST_WORD else word[:LONGEST_WORD] + "…"


class FuserviceError(Exception):
    """A failure that a user can meet: ``str()`` is the whole sentence, without the program's name."""

    exit_code = EXIT_FAILURE


class UsageError(FuserviceError):
    """The command line cannot be carried out as it was typed."""

    exit_code = EXIT_USAGE


class NoServiceError(FuserviceError):
    """Nobody serves the filesystem type that was asked for (no socket, or a stale one)."""

    exit_code = EXIT_NO_SERVICE


class PolicyError(FuserviceError):
    """The caller asked for something that our rules refuse."""


class ImageError(FuserviceError):
    """The image cannot be served: it is damaged, cut short, or uses a feature the driver does not know."""


class SystemCallError(FuserviceError):
    """The kernel refused an operation that we need; names the operation, the object and the reason."""


class ProtocolError(FuserviceError):
    """Abstract: raise one of the subclasses."""


class RemoteProtocolError(ProtocolError):
    """Theirs: the peer did what the protocol forbids. The conversation ends."""


class PeerGoneError(RemoteProtocolError):
    """Theirs: the peer hung up, or stayed silent past its deadline."""


class NoHelloError(PeerGoneError):
    """Theirs: the peer hung up on our hello. It may speak another dialect."""


class LocalProtocolError(Exception):
    """Ours: we tried a step that the protocol forbids. A bug, hence no FuserviceError: it shows a traceback."""


class RefusalError(FuserviceError):
    """Refused: a request that we understand and will not do.

    ``errno`` goes to the peer as the answer; the sentence goes to the user. ``ends`` says that the request shows a peer not
    worth talking to: it gets its answer, and the conversation ends. ``details`` are lines of the kernel's own.
    """

    def __init__(self, errno: int, sentence: str = "", *, ends: bool = False, details: Sequence[str] = ()) -> None:
        super().__init__(sentence or os.strerror(errno))
        self.errno = errno
        self.ends = ends
        self.details = details

    @classmethod
    def of(cls, what: str, error: OSError | int, *, details: Sequence[str] = ()) -> Self:
        """Return the refusal that *error* (or an errno) of *what* makes, in the kernel's words."""
        number = error if isinstance(error, int) else error.errno or EIO
        return cls(number, f"{what}: {os.strerror(number)}", details=details)
