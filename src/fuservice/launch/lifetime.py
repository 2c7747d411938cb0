"""A server ends with its mount: whoever does not want to is killed. What a taken-over server says of itself counts for nothing.

The supervisor has a copy of the fuse device, given before the first byte of the image was read, and asks poll(2): it is an
error before the mount, none while the mount lives, and an error for good afterwards. He never reads from it.
"""

from __future__ import annotations

import time

from fuservice.linux.fusedev import is_mounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.launch.loop import Loop
    from fuservice.linux.fds import Fd

LONGEST_CONVERSATION: Final = 1_200.0  # seconds from the device to the mount: a few steps of five minutes (service.py)
LAST_ACTS: Final = 5.0  # seconds from the end of the mount to the server's


class Lifetime:
    """Owns *device*; calls *late* with a sentence once, if the server is still there when it should not be."""

    def __init__(self, loop: Loop, device: Fd, late: Callable[[str], None]) -> None:
        self._loop, self._device, self._late = loop, device, late
        self._deadline = time.monotonic() + LONGEST_CONVERSATION
        loop.tick(self._wait_for_mount)

    def _wait_for_mount(self, now: float) -> bool:
        if self._device.closed:
            return False
        if is_mounted(self._device.fileno()):
            self._loop.watch_for_error(self._device.fileno(), self._mount_is_gone)
            return False
        if now >= self._deadline:
            self._late(f"killed: it has no mount after {LONGEST_CONVERSATION:.0f} s")
            return False
        return True

    def _mount_is_gone(self) -> None:
        self._loop.forget(self._device.fileno())
        self._deadline = time.monotonic() + LAST_ACTS
        self._loop.tick(self._wait_for_end)

    def _wait_for_end(self, now: float) -> bool:
        if not self._device.closed and now >= self._deadline:
            self._late(f"killed: it did not end within {LAST_ACTS:.0f} s of its mount")
            return False
        return not self._device.closed

    def end(self) -> None:
        """The server has ended: close the device, without which the mount of a server that died answers with an error."""
        if not self._device.closed:
            self._loop.forget(self._device.fileno())
            self._device.close()
