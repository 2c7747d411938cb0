"""fuservice-TYPE.socket: where the mount helper connects; systemd starts an instance of the service for each connection."""

from __future__ import annotations

from fuservice.units.places import ROOT, USER_SOCKET_MODE, USER_SOCKETS
from fuservice.units.text import Directive, unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

MOST: Final = 64  # servers of one type at once: so many starts, at most, delay a mount that is meant
PER_SOURCE: Final = 32  # of one user's
FOR_ALL: Final = 256  # where no user has more than those


def socket(name: str, place: str, mode: int, version: int) -> str:
    """Return the socket unit of type *name*, in directory *place* with permission bits *mode*, for systemd *version*."""
    title = f"fuservice-{name}.socket: made by `fuservice units'."
    sections = {
        "Unit": (
            Directive("What `systemctl status` shows.", "Description", f"Mounts of type {name}"),
            Directive("It listens before fstab is mounted, and until that is unmounted.", "DefaultDependencies", "no"),
            Directive("The root of the servers.", "RequiresMountsFor", ROOT),
            Directive("For those who wait for all sockets.", "Before", "sockets.target"),
        ),
        "Socket": (
            *_listen(name, place, mode),
            Directive("The directory is root's: nobody puts a socket of theirs into it.", "DirectoryMode", "0755"),
            Directive("So many mounts at once.", "MaxConnections", MOST),
            Directive("So many of one user's (versions before 256 count no users) …", "MaxConnectionsPerSource", PER_SOURCE),
            Directive("… and then more in all.", "MaxConnections", FOR_ALL, since=257),
            *_limits(),
        ),
        "Install": (
            Directive("Enabled, it listens from boot on.", "WantedBy", "sockets.target"),
        ),
    }  # fmt: skip
    return unit(sections, title, version)


def user_socket(name: str, version: int) -> str:
    """Return the socket unit of type *name* for a user's own manager, of systemd *version*: nobody else can connect."""
    title = f"fuservice-{name}.socket: made by `fuservice units --user'."
    sections = {
        "Unit": (
            Directive("What `systemctl --user status` shows.", "Description", f"Mounts of type {name}"),
        ),
        "Socket": (
            *_listen(name, USER_SOCKETS, USER_SOCKET_MODE),
            Directive("The directory is the user's alone, as what it lies in is.", "DirectoryMode", "0700"),
            Directive("So many mounts at once.", "MaxConnections", PER_SOURCE),
            *_limits(),
        ),
        "Install": (
            Directive("Enabled, it listens whenever the user's manager runs.", "WantedBy", "sockets.target"),
        ),
    }  # fmt: skip
    return unit(sections, title, version)


def _listen(name: str, place: str, mode: int) -> Iterator[Directive]:
    yield Directive("The mount helper looks here.", "ListenSequentialPacket", f"{place}/{name}")
    yield Directive("One server for each mount, in a unit of its own.", "Accept", "yes")
    yield Directive("Who may connect may have filesystems parsed.", "SocketMode", f"{mode:04o}")
    yield Directive("Whoever connects after a stop hears that nobody listens.", "RemoveOnStop", "yes")


def _limits() -> Iterator[Directive]:
    yield Directive("A socket that was asked too often must not fail for good …", "TriggerLimitIntervalSec", 0)
    yield Directive("… but be slower: this interval …", "PollLimitIntervalSec", "1s", since=255)
    yield Directive("… has so many connections at most.", "PollLimitBurst", 1000, since=255)
