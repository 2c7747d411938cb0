"""What is in an image: asked of a process in the cage, which looks at its magic numbers and answers with one word.

The image's bytes are hostile, and so is the answer: it is bounded, and it is a word of ours or none.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from fuservice.drivers import kinds
from fuservice.errors import EXIT_OK, SystemCallError
from fuservice.helper.grants import Grant
from fuservice.helper.manifest import Rule
from fuservice.launch.child import SUPERVISOR, Contained
from fuservice.launch.direct import Direct
from fuservice.launch.state import States
from fuservice.linux.fds import Closed, Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PATIENCE: Final = 60.0  # seconds: a disk that has to spin up first, a slow network
_SOCKET: Final = 3
_ROOM: Final = 64  # bytes of a packet: two numbers one way, a word the other
_NAME: Final = "fuservice-probe"


def open_source(path: str) -> Fd:
    """Return *path* opened for reading, with the helper's checks; the caller owns it.

    RefusalError where it cannot be opened, or is neither a regular file nor a block device.
    """
    grant = Grant(path, Rule("any", writable=False), writable=False)
    try:
        return grant.open(os.O_RDONLY, block_device=False)
    finally:
        grant.close()


class Probe(Closed):
    """A process in the cage that looks into an image. It has a copy of the image's descriptor, so the caller may close it."""

    def __init__(self, source: Fd, path: str, offset: int = 0) -> None:
        """Have *source*, called *path*, looked at from byte *offset* on; does not wait. SystemCallError where no process can be made."""
        self._path, self._said = path, list[str]()
        size = max(0, os.lseek(source.fileno(), 0, os.SEEK_END) - offset)
        try:
            self._process = Direct(_NAME, _load, States(""))
        except OSError as error:
            raise SystemCallError(f"{path}: cannot start a process to look into it: {error.strerror}") from None
        self._over = False
        self._process.connection.deadline = time.monotonic() + PATIENCE
        with suppress(OSError):  # it is gone: what it has said is told below
            self._process.connection.send(b"%d %d" % (offset, size), source.fileno())

    def word(self) -> str:
        """Return the word of ``kinds.KINDS`` for what the image is. SystemCallError where the process fails.

        Blocks while the image is read, for PATIENCE seconds at most.
        """
        try:
            word = self._process.connection.receive(_ROOM).decode("ascii", "replace")
        except OSError as error:
            word = f"{error.strerror or 'it takes too long'}"
        if word not in kinds.KINDS:
            self.close()
            reason = "; ".join(self._said) or word or "it has said nothing"
            raise SystemCallError(f"{self._path}: the process that looks into it has failed: {reason}")
        return word

    def close(self) -> None:
        """Wait until it has ended; a second call does nothing."""
        if not self._over:
            self._over = True
            self._process.connection.close()
            self._said = self._process.end()


def _load() -> Contained:
    """Import what reads the image, in its process."""
    from fuservice.drivers import magic  # noqa: F401  # there are no imports in the cage

    return Contained(_look)


def _look(_name: str) -> int:
    """Be the process in the cage: take the image over the connection, and answer."""
    from fuservice.drivers.magic import identify

    os.close(int(os.environ.pop(SUPERVISOR)))  # there will be no fuse device
    socket = FdSeqPacket(Fd(_SOCKET))
    numbers, images = socket.receive_with_fds(_ROOM)
    offset, size = map(int, numbers.split())
    image = images[0].fileno()
    try:
        word = identify(lambda position, length: os.pread(image, length, offset + position), size)
    except OSError as error:  # a disk that cannot be read: the reason is not a word of ours, and told as it is
        word = error.strerror or "error"
    socket.send(word.encode())
    return EXIT_OK
