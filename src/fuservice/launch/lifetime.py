"""A server ends with its mount: whoever does not want to is killed. What a taken-over server says of itself counts for nothing.

The supervisor is given a copy of the fuse device before the first byte of the image was read, and asks poll(2): it is an error
before the mount, none while the mount lives, and an error for good afterwards. He never reads from it. Once the mount is there,
epoll(7) watches the device for him and he closes his copy: a watch does not keep what it watches open, so a server that dies
takes its connection along, and those who wait for it are told, whatever the supervisor does meanwhile.
"""

from __future__ import annotations

import select
import time

from fuservice.linux import mountinfo
from fuservice.linux.fusedev import is_mounted
from fuservice.linux.servers import device_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.launch.loop import Loop
    from fuservice.linux.fds import Fd

LONGEST_CONVERSATION: Final = 1_200.0  # seconds from the device to the mount: a few steps of five minutes (service.py)
LAST_ACTS: Final = 5.0  # seconds from the end of the mount to the server's


class Lifetime:
    """Owns *device*; calls *late* with a sentence once, if the server is still there when it should not be.

    *device* is the mount's device number, as mountinfo shows it, from when the mount was seen ("" where the kernel does not
    tell) until it is seen to be unmounted. *mounted* is called when it is there.
    """

    def __init__(
        self, loop: Loop, device: Fd, late: Callable[[str], None], mounted: Callable[[], None] = lambda: None
    ) -> None:
        self._loop, self._fd, self._late, self._mounted = loop, device, late, mounted
        self._watch: select.epoll | None = None
        self._ended = False
        self.device = ""
        self._deadline = time.monotonic() + LONGEST_CONVERSATION
        loop.tick(self._wait_for_mount)

    def look(self) -> None:
        """See whether the mount is there by now, sooner than at the next tick."""
        if not self._ended and not self._fd.closed and is_mounted(self._fd.fileno()):
            self._see_mount()

    def _wait_for_mount(self, now: float) -> bool:
        self.look()
        if self._ended or self._fd.closed:
            return False
        if now >= self._deadline:
            self._late(f"killed: it has no mount after {LONGEST_CONVERSATION:.0f} s")
            return False
        return True

    def _see_mount(self) -> None:
        self.device = device_of(self._fd.fileno())
        self._watch = select.epoll(1)
        self._watch.register(self._fd.fileno(), 0)  # errors are told always
        self._loop.watch(self._watch.fileno(), self._mount_is_gone)
        self._fd.close()
        self._mounted()

    def _mount_is_gone(self) -> None:
        if not any(mount.device == self.device for mount in mountinfo.mounts()):
            self.device = ""  # and may be another's from now on; if it was aborted only, the mount is there still
        self._end_watch()
        self._deadline = time.monotonic() + LAST_ACTS
        self._loop.tick(self._wait_for_end)

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._loop.forget(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _wait_for_end(self, now: float) -> bool:
        if not self._ended and now >= self._deadline:
            self._late(f"killed: it did not end within {LAST_ACTS:.0f} s of its mount")
            return False
        return not self._ended

    def end(self) -> None:
        """The server has ended: look once more if there is a mount, which is dead then, and hold the device no longer."""
        if not self._ended and not self._fd.closed and is_mounted(self._fd.fileno()):
            self.device = device_of(self._fd.fileno())
        self._ended = True
        self._end_watch()
        self._fd.close()
