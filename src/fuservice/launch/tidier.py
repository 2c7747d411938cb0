"""Detaching what a listener's dead servers have left, in a child process: the way to a mount point may be as dead as they are.

One child at a time, for all mounts that have been left by then.
"""

from __future__ import annotations

import os
import signal
import time

from fuservice.errors import EXIT_BUG, EXIT_OK
from fuservice.launch.dead import detach_dead
from fuservice.launch.keeper import WARNING
from fuservice.launch.waiting import ends_within
from fuservice.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final, NoReturn

    from fuservice.launch.dead import Unmount
    from fuservice.launch.loop import Loop

PATIENCE: Final = 10.0  # seconds for a child, before it is killed
_FIRST_CLOSED: Final = 3


class Tidier:
    """Sees to the mounts of connections, by device number (mountinfo's), that have lost their servers."""

    def __init__(self, loop: Loop, log: Callable[[int, str], None], unmount: Unmount | None = None) -> None:
        """*unmount* detaches what is at a path; without it, our own rights do."""
        self._loop, self._log, self._unmount = loop, log, unmount
        self._left: set[str] = set()
        self._pid = 0
        self._deadline = 0.0

    def add(self, devices: Iterable[str]) -> None:
        """Detach the mounts of *devices*, as far as our namespace has them; soon, and in another process."""
        there = {mount.device for mount in mountinfo.mounts()}
        self._left |= there.intersection(devices)  # whoever has ended with his mount has left nothing
        self._start()

    def _start(self) -> None:
        if self._pid or not self._left:
            return
        devices, self._left = self._left, set()
        try:
            self._pid = os.fork()
        except OSError as error:
            self._log(WARNING, f"cannot detach what dead servers have left: {error.strerror}")
            return
        if self._pid == 0:
            self._detach(devices)
        self._deadline = time.monotonic() + PATIENCE
        self._loop.tick(self._check)

    def _detach(self, devices: Iterable[str]) -> NoReturn:
        """Be the child, with nothing of the listener's but its log."""
        code = EXIT_BUG
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.closerange(_FIRST_CLOSED, os.sysconf("SC_OPEN_MAX"))
            for device in devices:
                for place in detach_dead(device, lambda line: self._log(WARNING, line), self._unmount):
                    self._log(WARNING, f"{place}: detached: nobody serves it any more")
            code = EXIT_OK
        finally:
            os._exit(code)

    def _check(self, now: float) -> bool:
        if self._pid and now >= self._deadline:
            self._log(WARNING, f"cannot detach what dead servers have left: it takes longer than {PATIENCE:.0f} s")
            os.kill(self._pid, signal.SIGKILL)
            return False
        return bool(self._pid)

    def bury(self, pid: int) -> bool:
        """Say whether *pid*, which has ended and was reaped, was our child; then the next one may start."""
        if pid != self._pid:
            return False
        self._pid = 0
        self._start()
        return True

    def finish(self) -> None:
        """Wait, no longer than PATIENCE for each child, until nothing is left to be detached."""
        while self._pid:
            if not ends_within(self._pid, PATIENCE):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self.bury(self._pid)
