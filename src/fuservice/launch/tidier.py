"""Tidying up what a listener's dead servers have left, in a child process: the way to a mount point may be as dead as they are.

One child at a time, for all mounts that have been left by then.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from fuservice.errors import EXIT_BUG, EXIT_OK
from fuservice.launch.child import told
from fuservice.launch.keeper import WARNING
from fuservice.launch.waiting import ends_within
from fuservice.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, NoReturn, TypeAlias

    from fuservice.launch.loop import Loop

    #: Is given a connection's device number, why its server has ended ("" if that is not known), and what takes a line of the log.
    Tidy: TypeAlias = Callable[[str, str, Callable[[str], None]], None]

PATIENCE: Final = 10.0  # seconds for a child, before it is killed
_FIRST_CLOSED: Final = 3


class Tidier:
    """Sees to the mounts of connections, by device number (mountinfo's), that have lost their servers."""

    def __init__(self, loop: Loop, log: Callable[[int, str], None], tidy: Tidy) -> None:
        """*tidy* is called in the child for each connection."""
        self._loop, self._log, self._tidy = loop, log, tidy
        self._left: dict[str, str] = {}
        self._pid = 0
        self._deadline = 0.0

    def add(self, devices: Mapping[str, str]) -> None:
        """Tidy up after the servers of *devices* → why each has ended, if our namespace has mounts of theirs; soon, in another process."""
        there = {mount.device for mount in mountinfo.mounts()}
        # Whoever has ended with his mount has left nothing.
        self._left |= {device: why for device, why in devices.items() if device in there}
        self._start()

    def _start(self) -> None:
        if self._pid or not self._left:
            return
        left, self._left = self._left, {}
        try:
            self._pid = os.fork()
        except OSError as error:
            self._log(WARNING, f"cannot detach what dead servers have left: {error.strerror}")
            return
        if self._pid == 0:
            self._tidy_up(left)
        self._deadline = time.monotonic() + PATIENCE
        self._loop.tick(self._check)

    def _tidy_up(self, left: Mapping[str, str]) -> NoReturn:
        """Be the child, with nothing of the listener's but its log."""
        code = EXIT_BUG
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.closerange(_FIRST_CLOSED, os.sysconf("SC_OPEN_MAX"))
            for device, why in left.items():
                self._tidy(device, why, partial(self._log, WARNING))
            code = EXIT_OK
        except Exception as error:  # noqa: BLE001  # there is nobody above us, and the next one may fare better
            self._log(WARNING, f"tidying up after a dead server: {told(error).rstrip()}")
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
