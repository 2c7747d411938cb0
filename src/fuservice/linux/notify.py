"""Telling the service manager how we are: sd_notify(3), one datagram each."""

from __future__ import annotations

import _socket
import os
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping


class Manager:
    """Whoever NOTIFY_SOCKET names: a path, or an abstract name after "@". Nobody, where it is not set."""

    __slots__ = ("_address",)

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take the variable out of *environment*: a child must not think that it is meant for it."""
        name = os.fsencode(environment.pop("NOTIFY_SOCKET", ""))
        self._address = b"\0" + name[1:] if name.startswith(b"@") else name

    def tell(self, **facts: str | int) -> None:
        """Send *facts*, like READY=1 and STATUS="…"; a manager that is gone, or busy, is no reason to fail. Does not block."""
        if not self._address:
            return
        text = "".join(f"{name}={value}\n" for name, value in facts.items())
        with suppress(OSError):
            kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
            speaking = _socket.socket(_socket.AF_UNIX, kind)
            try:
                speaking.sendto(text.encode(), self._address)
            finally:
                speaking.close()

    def ready(self, status: str) -> None:
        """Say that we serve."""
        self.tell(READY=1, STATUS=status)

    def reloading(self) -> None:
        """Say that we load code anew; ready() follows. MONOTONIC_USEC as Type=notify-reload wants it."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000, STATUS="reloading")

    def stopping(self, status: str) -> None:
        """Say that we end."""
        self.tell(STOPPING=1, STATUS=status)
