"""The warm process: it has imported a driver, and clones a server for each connection that the listener hands to it.

It holds rights, and reads nothing that is hostile: packets of numbers from the listener, and connections that it passes on
unread. It opens nothing. The servers are the listener's children (CLONE_PARENT), so they need it no longer once they are born.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from functools import partial

from fuservice.cage.plan import clone_flags
from fuservice.errors import PolicyError
from fuservice.launch import request
from fuservice.launch.child import Contained, Starter, become_server
from fuservice.launch.keeper import CHANNEL_FD
from fuservice.launch.request import Message
from fuservice.linux import capabilities, prctl
from fuservice.linux.channel import Channel
from fuservice.linux.clone import CLONE_PARENT, clone
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Final

    from fuservice.linux.channel import Packet

NAME: Final = "fuservice-warm"  # what ps(1) calls it
#: For namespaces and mounts, for the server's ids, for emptying its bounding set, and to read the code wherever it lies.
_NEEDED: Final = sum(1 << capability for capability in (2, 6, 7, 8, 21))  # linux/capability.h

_LOOK_AGAIN: Final = (
    1.0  # seconds: in a crowd, looking at a hundred files before each clone would be a tenth of the work
)

# Why run() returned.
GONE: Final = "gone"  # the listener
AGAIN: Final = "again"  # it is time for a fresh process
COLD: Final = "--cold"  # the driver wants a process that has not imported it


def run(words: Sequence[str], load: Callable[[str], Contained]) -> None:
    """Be the warm process that a Keeper has started with *words*; *load* imports the driver for a type.

    Returns when the listener is gone. PolicyError where the listener is of another version than this code.
    """
    name, without, most, version, *rest = words
    if version != request.VERSION:
        raise PolicyError("the code on the disk is not of the listener's version: restart the listener")
    channel = Channel(Fd(CHANNEL_FD))
    warm = Warm(channel, partial(load, name), [wall for wall in without.split(",") if wall], int(most))
    why = warm.run(cold=COLD in rest)
    if why != GONE:  # the same process, as a program that has just begun
        plain = [word for word in sys.orig_argv if word != COLD]
        os.execv(plain[0], [*plain, COLD] if why == COLD else plain)
    channel.close()


def arguments(name: str, without: Collection[str], most: int) -> list[str]:
    """Return the *words* for run(), but for the version, which the Keeper adds."""
    return [name, ",".join(without), str(most)]


class Warm:
    """Serves one listener, at *channel*."""

    def __init__(self, channel: Channel, load: Callable[[], Contained], without: Collection[str], most: int) -> None:
        """*load* imports the driver. Cages are built *without* these walls; after *most* servers run() returns (0: never)."""
        self._channel, self._load, self._without, self._most = channel, load, without, most
        self._starter = Starter()
        # They are the walls', whatever the driver.
        self._flags = CLONE_PARENT | clone_flags(Contained(len).cage(self._starter, without))

    def run(self, *, cold: bool) -> str:
        """Return GONE, AGAIN or COLD; what waits at the channel then is unread, for the process that follows.

        *cold*: the driver does not survive a fork, so each server imports it for itself.
        """
        prctl.set_name(NAME)
        prctl.set_parent_death_signal(signal.SIGKILL)
        if not cold:
            contained = self._load()
            if not contained.warm:
                return COLD
            self._load = lambda: contained
        _drop_rights()
        gc.collect()
        gc.freeze()  # the servers' collector leaves these pages alone, so they stay shared
        self._channel.send(Message(request.READY).pack())
        return self._serve()

    def _serve(self) -> str:
        imported, looked, servers = imported_files(), time.monotonic(), 0
        while True:
            self._channel.wait()
            if self._most and servers >= self._most:
                return AGAIN
            if time.monotonic() - looked > _LOOK_AGAIN:
                if imported != imported_files():
                    return AGAIN
                looked = time.monotonic()
            packet = self._channel.receive(request.ROOM)
            if not packet.data:
                return GONE
            message = Message.unpack(packet.data)
            if message.kind == request.RELOAD:
                return AGAIN
            self._clone(message, packet)
            servers += 1

    def _clone(self, message: Message, packet: Packet) -> None:
        try:
            if clone(self._flags) == 0:
                # What says that it is born says by the kernel who it is. Where nobody listens any more it is not needed.
                born = partial(self._channel.send_patiently, Message(request.BORN, message.number).pack())
                fds, trial = [fd.fileno() for fd in packet.fds], message.kind == request.TRIAL
                become_server(message.name, fds, self._load, self._starter, self._without, born=born, trial=trial)
        except OSError as error:
            self._channel.send(Message(request.FAILED, message.number, error.errno or 0).pack())
        packet.close()


def _drop_rights() -> None:
    """Keep what building cages takes, and no way to have more: not even by a new program, which may follow."""
    prctl.set_no_new_privs()
    _, permitted, _ = capabilities.capabilities()
    capabilities.set_capabilities(permitted & _NEEDED, permitted & _NEEDED, 0)


def imported_files() -> Mapping[str, tuple[int, int] | None]:
    """Return inode and time of change of each file that was imported: they differ when it was replaced (an upgrade)."""
    paths = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
    return {path: _identity(path) for path in paths if path}


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
