"""Attempts to speak to anybody but the mount helper: by any family of sockets, on the network or on the machine."""

from __future__ import annotations

import errno
import os
import struct

from fuservice.linux.rawsyscall import buffer, call
from fuservice.prove.attempt import AbsentError, Subject, first_that_succeeds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from fuservice.prove.ground import Ground

NETWORK: Final = Subject("network")

# linux/socket.h, linux/net.h
AF_UNIX: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10
AF_NETLINK: Final = 16
AF_PACKET: Final = 17
AF_ALG: Final = 38
AF_VSOCK: Final = 40
LAST_FAMILY: Final = 46
SOCK_STREAM: Final = 1
SOCK_DGRAM: Final = 2
SOCK_RAW: Final = 3
SOCK_SEQPACKET: Final = 5

#: Who answers on many machines, and can do much for who asks nicely.
BUSES: Final = ("/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket")
SYSTEMD: Final = ("/run/systemd/private", "/run/systemd/notify", "/run/systemd/journal/socket", "/dev/log")


def unix_address(path: str) -> bytes:
    """Return struct sockaddr_un (unix(7)); a *path* that begins with "@" is an abstract one."""
    name = b"\0" + path[1:].encode() if path.startswith("@") else path.encode() + b"\0"
    return struct.pack("H", AF_UNIX) + name


def inet_address(port: int) -> bytes:
    """Return struct sockaddr_in (ip(7)) of *port* on this machine."""
    return struct.pack("H", AF_INET) + struct.pack(">H", port) + bytes((127, 0, 0, 1)) + bytes(8)


def _connect(family: int, kind: int, address: bytes) -> None:
    call("connect", call("socket", family, kind, 0), address, len(address))


def _connect_to_any(paths: Sequence[str], known: Sequence[str]) -> None:
    """Connect to whichever of *paths* takes us, of those that are *known* to be on this machine."""
    if not set(paths) & set(known):
        raise AbsentError("no such socket on this machine")
    kinds = (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET)
    first_that_succeeds([lambda p=p, k=k: _connect(AF_UNIX, k, unix_address(p)) for p in paths for k in kinds])  # type: ignore[misc]


@NETWORK.attempt("connect to a TCP port", "every service that trusts this machine", ("net", "landlock", "seccomp"))
def connect_tcp(ground: Ground) -> None:
    """Connect to a listener of ours."""
    _connect(AF_INET, SOCK_STREAM, inet_address(ground.tcp_port))


@NETWORK.attempt("send a UDP packet", "telling somebody outside what is in the image", ("net", "seccomp"))
def send_udp(ground: Ground) -> None:
    """Send to a port of this machine."""
    address = inet_address(ground.tcp_port)
    call("sendto", call("socket", AF_INET, SOCK_DGRAM, 0), b"x", 1, 0, address, len(address))


@NETWORK.attempt("listen on a TCP port", "being reached from outside", ("landlock", "seccomp"))
def listen_tcp(_ground: Ground) -> None:
    """Bind a port of this machine that the kernel chooses, and listen."""
    fd = call("socket", AF_INET, SOCK_STREAM, 0)
    address = inet_address(0)
    call("bind", fd, address, len(address))
    call("listen", fd, 1)


@NETWORK.attempt("connect to a socket in the file tree", "any service of the machine", ("root", "seccomp"))
def connect_path(ground: Ground) -> None:
    """Connect to a listener of ours."""
    _connect(AF_UNIX, SOCK_SEQPACKET, unix_address(ground.socket))


@NETWORK.attempt("connect to an abstract socket", "services of sessions and desktops", ("net", "landlock", "seccomp"))
def connect_abstract(ground: Ground) -> None:
    """Connect to a listener of ours."""
    _connect(AF_UNIX, SOCK_SEQPACKET, unix_address(ground.abstract))


@NETWORK.attempt("connect to D-Bus", "every service on the bus", ("root", "seccomp"))
def connect_bus(ground: Ground) -> None:
    """Connect to the system bus."""
    _connect_to_any(BUSES, ground.sockets)


@NETWORK.attempt("connect to systemd", "starting units, forging log lines", ("root", "seccomp"))
def connect_systemd(ground: Ground) -> None:
    """Connect to a socket of systemd or of the journal."""
    _connect_to_any(SYSTEMD, ground.sockets)


@NETWORK.attempt("make a pair of sockets", "descriptors kept where no limit counts them", ("seccomp",))
def make_pair(_ground: Ground) -> None:
    """socketpair(2)."""
    call("socketpair", AF_UNIX, SOCK_STREAM, 0, buffer(bytes(8)))


def _family(
    name: str, family: int, kind: int, guards: Sequence[str] = ("seccomp",), *, privileged: bool = False
) -> None:
    """Add the attempt to make a socket of *family*: each has parsers of its own in the kernel."""

    def make(_ground: Ground) -> None:
        try:
            call("socket", family, kind, 0)
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT):
                raise AbsentError(f"this kernel has no {name}") from None
            raise

    gain = "the kernel's code for this family"
    NETWORK.attempt(f"make a socket: {name}", gain, guards, privileged=privileged)(make)


_family("AF_UNIX", AF_UNIX, SOCK_STREAM)
_family("AF_INET", AF_INET, SOCK_STREAM)
_family("AF_INET6", AF_INET6, SOCK_DGRAM)
_family("AF_NETLINK", AF_NETLINK, SOCK_RAW)
_family("AF_PACKET", AF_PACKET, SOCK_RAW, ("seccomp", "capabilities"), privileged=True)
_family("AF_ALG", AF_ALG, SOCK_SEQPACKET)
_family("AF_VSOCK", AF_VSOCK, SOCK_STREAM)


@NETWORK.attempt("make a socket: any family", "the kernel's code for the rarest families", ("seccomp",))
def any_family(_ground: Ground) -> None:
    """Try every family with every kind."""
    kinds = (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET)
    families = range(1, LAST_FAMILY + 1)
    first_that_succeeds([lambda f=f, k=k: os.close(call("socket", f, k, 0)) for f in families for k in kinds])  # type: ignore[misc]
