"""Finding the socket that we were started with: systemd's sd_listen_fds(3), for one socket and one connection."""

from __future__ import annotations

import os
from contextlib import suppress

from fuservice.errors import RemoteProtocolError
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Final

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
SUPERVISOR: Final = "FUSERVICE_SUPERVISOR"  # the number of a socket on which our starter waits for the fuse device
RESTARTS: Final = "FUSERVICE_RESTARTS"  # set where he wants to see the image too, for a successor of ours
_waiting: list[FdSeqPacket] = []  # the supervisor, until he has been shown the image
VARIABLES: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def connected_socket(environment: MutableMapping[str, str]) -> FdSeqPacket | None:
    """Return the connection that this process was started for, or None: this is no service.

    Our three variables are taken out of *environment*: a child must not think that they are meant for it.
    RemoteProtocolError where we were given something, and it is not one connected AF_UNIX SEQPACKET socket.
    """
    count, pid, _ = (environment.pop(name, "") for name in VARIABLES)
    if not count or pid != str(os.getpid()):
        return None
    if count != "1":
        raise RemoteProtocolError(f"can only handle 1 service socket, got {count}.")
    socket = Fd(FIRST_FD)
    try:
        os.set_inheritable(FIRST_FD, False)  # noqa: FBT003
        return FdSeqPacket(socket)
    except OSError as error:
        socket.take()  # not what we were promised, so not ours to close
        raise RemoteProtocolError(
            f"service socket: {error.strerror}, expected a connected AF_UNIX SEQPACKET socket"
        ) from None


def show_supervisor(device: int) -> None:
    """Give whoever looks after us, if anybody does, a copy of the fuse *device*: so he sees when our mount is gone.

    Before the first byte of the image is read: afterwards nobody believes us.
    """
    if number := os.environ.pop(SUPERVISOR, ""):
        supervisor = FdSeqPacket(Fd(int(number)))
        _show(supervisor, b"device", device)
        if os.environ.pop(RESTARTS, ""):
            _waiting.append(supervisor)
        else:
            supervisor.close()


def show_image(image: int) -> None:
    """Give him the *image* as well, if he wants it; before the first byte of it is read."""
    while _waiting:
        with _waiting.pop() as supervisor:
            _show(supervisor, b"image", image)


def leave_supervisor() -> None:
    """Show whoever looks after us nothing: he has it all."""
    os.close(int(os.environ.pop(SUPERVISOR)))


def _show(supervisor: FdSeqPacket, what: bytes, fd: int) -> None:
    with suppress(ConnectionError):
        supervisor.send(what, fd)
