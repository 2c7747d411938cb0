"""Somebody between helper and service, who passes every packet on, and at the packet of the test's choice does not."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

MOST_BYTES = 1 << 17
MOST_FDS = 16
PATIENCE = 20.0


class Middle:
    """A socket for helpers at *front*, each packet relayed to the service at *back* and the other way round."""

    def __init__(self, front: Path, back: Path) -> None:
        self.seen: list[str] = []  # the magic of each packet, in order
        self._back = back
        self._listening = self._socket()
        self._listening.bind(os.fspath(front))
        self._listening.listen()
        self._listening.settimeout(PATIENCE)

    @staticmethod
    def _socket() -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listening.close()

    def relay(self, cut_at: int = -1, cut: Callable[[], object] = lambda: None, *, go_on: bool = False) -> None:
        """Pass on one conversation to its end; at packet number *cut_at*, call *cut*, drop the packet and hang up on both.

        ``go_on``: call *cut*, and then go on as if nothing had happened.
        """
        helper, _ = self._listening.accept()
        with helper, self._socket() as service:
            service.connect(os.fspath(self._back))
            other = {helper: service, service: helper}
            while other:
                ready, _, _ = select.select(list(other), [], [], PATIENCE)
                assert ready, f"silence after {self.seen}"
                for source in ready:
                    try:
                        data, fds, _, _ = socket.recv_fds(source, MOST_BYTES, MOST_FDS)
                    except ConnectionResetError:  # it ended, and had not read all
                        data, fds = b"", []
                    try:
                        if data:
                            self.seen.append(data[:4].decode())
                        if data and len(self.seen) - 1 == cut_at:
                            cut()
                            if not go_on:
                                return
                        if not data:
                            self._hang_up(other, source)
                        else:
                            with contextlib.suppress(BrokenPipeError):  # who hung up does not hear the rest
                                socket.send_fds(other.get(source, source), [data], fds)
                    finally:
                        for fd in fds:
                            os.close(fd)

    @staticmethod
    def _hang_up(other: dict[socket.socket, socket.socket], source: socket.socket) -> None:
        """Tell the other end that *source* will say no more."""
        peer = other.pop(source)
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)
