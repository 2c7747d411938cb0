"""The server in a unit: ``python -I -m fuservice.cli.unit TYPE INSTANCE``, made by ``fuservice units``. Not for people.

This process stays outside of the inner half of the cage to look after the server, its child: it names what it is killed for,
cuts its log short, and ends it when its mount is gone. It needs no right for that.
"""

from __future__ import annotations

import os
import sys

from fuservice.cage.profile import Profile
from fuservice.cli import contained, warm
from fuservice.errors import EXIT_FAILURE, EXIT_LEFT, EXIT_OK, FuserviceError
from fuservice.launch.child import Contained
from fuservice.launch.single import serve_one
from fuservice.launch.state import States
from fuservice.linux import prctl
from fuservice.service.handover import connected_socket
from fuservice.service.service import CALLER
from fuservice.units.inside import cage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fuservice.cage.operations import Operation
    from fuservice.launch.child import Starter
    from fuservice.service.driver import Driver


class InUnit(Contained):
    """What *contained* is, in the half of the cage that systemd leaves to us; *instance* is the unit's."""

    __slots__ = ("_caller", "_prepare")

    def __init__(self, contained: Contained, instance: str) -> None:
        super().__init__(
            contained.serve, prepare=self._begin, syscalls=contained.syscalls, binds=contained.binds, threads=contained.threads
        )  # fmt: skip
        self._caller, self._prepare = caller(instance), contained.prepare

    def cage(self, starter: Starter, without: Collection[str]) -> Sequence[Operation]:  # systemd chose the user
        own = Profile(syscalls=self.syscalls, binds=self.binds, threads=self.threads, supervised=True)
        return cage(own, without)

    def _begin(self) -> None:
        prctl.set_dumpable(1)  # or our own /proc would be root's; the cage takes it away again
        os.environ[CALLER] = self._caller
        self._prepare()


def profile(driver: type[Driver]) -> Profile:
    """Return what the server of *driver* gets, by its unit and within."""
    return Profile(syscalls=driver.syscalls, binds=driver.binds, threads=driver.threads)


def caller(instance: str) -> str:
    """Return the uid in the name of an *instance*, which is N-PID-UID (systemd.socket(5)): the connection shows no other's.

    Of who connects from another pid namespace systemd knows nothing, and no rights follow from that: it is root's mount.
    """
    uid = instance.rpartition("-")[2]
    return uid if uid.isdecimal() else "0"


def serve(name: str, instance: str, what: Contained) -> int:
    """Have *what* serve the connection that systemd has passed, in a child; return the exit code. Blocks until that has ended.

    A socket unit passes it as sd_listen_fds(3) has it, a transient unit as standard input.
    """
    os.environ["LISTEN_PID"] = str(os.getpid())  # with PrivatePIDs=, systemd says what our number is outside
    try:
        connection = connected_socket(os.environ) or contained.standard_input()
    except FuserviceError as error:
        print(f"fuservice: {error}", file=sys.stderr)
        return EXIT_FAILURE
    prctl.set_name(f"unit-{name}")
    prctl.set_dumpable(0)  # the server has our user
    inside = InUnit(what, instance)
    server = serve_one(name, connection, inside, without=(), facts={}, states=States(""), log=contained.Log())
    if not server.why:
        return EXIT_OK
    return EXIT_LEFT if server.device else EXIT_FAILURE


def main() -> int:
    """Serve the connection that systemd has passed; return the exit code."""
    _, name, instance = sys.argv
    return serve(name, instance, warm.load(name))


if __name__ == "__main__":
    sys.exit(main())
