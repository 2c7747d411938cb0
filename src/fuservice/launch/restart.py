"""Another server in the place of one that died, while its mount lives on: whoever looks after it holds the fuse device for that.

So the connection outlives the server, and those who wait for its answers wait for the successor's: a fresh process in a fresh
cage, which is sent the device, the image and what the caller typed. Nothing of what the dead one knew is used.
"""

from __future__ import annotations

import os
import time

from fuservice.linux.fds import Closed
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.linux.fusedev import is_mounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.launch.child import Contained
    from fuservice.launch.server import Server
    from fuservice.linux.fds import Fd

MOST: Final = 3  # successors within PERIOD: a request that kills each server is sent to each
PERIOD: Final = 60.0  # seconds
LARGEST: Final = 60_000  # bytes of what the caller typed: it is sent in one packet


class Restart(Closed):
    """Who follows whom. Owns the fuse device and the image, once a server has shown both."""

    def __init__(self, load: Callable[[], Contained], argv_file: bytes) -> None:
        """*load* imports what serves as a successor does; *argv_file* is what the first server was sent as such."""
        self._load, self._words = load, b"%d\0%b" % (os.getuid(), argv_file)
        self._fds: list[Fd] = []
        self._times: list[float] = []

    def take(self, fd: Fd) -> None:
        """Keep *fd*, which a server has shown: first the device, and then the image."""
        self._fds.append(fd)

    def successor(self, dead: Server) -> tuple[FdSeqPacket, Contained] | None:
        """Return the connection for another server, with its orders in it, and what it does; None if there shall be none.

        It must have been killed by somebody else, or by itself, and the mount must be alive.
        """
        self._times = [moment for moment in self._times if moment > time.monotonic() - PERIOD]
        if len(self._fds) != 2 or not dead.was_killed or len(self._times) >= MOST or len(self._words) > LARGEST:
            return None
        if not is_mounted(self._fds[0].fileno()):
            return None
        self._times.append(time.monotonic())
        ours, theirs = FdSeqPacket.pair()
        with ours:
            ours.send_with_fds(self._words, [fd.fileno() for fd in self._fds])
        return theirs, self._load()

    def device(self) -> int:
        """Return the fuse device, which stays ours."""
        return self._fds[0].fileno()

    def close(self) -> None:
        """Let the connection end."""
        for fd in self._fds:
            fd.close()
