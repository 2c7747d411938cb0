"""The server in a unit: ``python -I -m fuservice.cli.unit TYPE INSTANCE``, made by ``fuservice units``. Not for people."""

from __future__ import annotations

import os
import sys

from fuservice.cage.plan import enter
from fuservice.cage.profile import Profile
from fuservice.drivers import catalog
from fuservice.errors import EXIT_FAILURE
from fuservice.fuse import watch
from fuservice.service.main import service_main
from fuservice.service.service import CALLER
from fuservice.units.inside import cage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.service.driver import Driver


def profile(driver: type[Driver]) -> Profile:
    """Return what the server of *driver* gets, by its unit and within."""
    return Profile(syscalls=driver.syscalls, binds=driver.binds)


def caller(instance: str) -> str:
    """Return the uid in the name of an *instance*, which is N-PID-UID (systemd.socket(5)): the connection shows no other's.

    Of who connects from another pid namespace systemd knows nothing, and no rights follow from that: it is root's mount.
    """
    uid = instance.rpartition("-")[2]
    return uid if uid.isdecimal() else "0"


def main() -> int:
    """Serve the connection that systemd has passed; return the exit code."""
    _, name, instance = sys.argv
    driver = catalog.find(name)
    os.environ[CALLER] = caller(instance)
    os.environ["LISTEN_PID"] = str(os.getpid())  # with PrivatePIDs=, systemd says what our number is outside
    watch.arm()
    try:
        enter(cage(profile(driver)))
    except OSError as error:
        print(f"fuservice: {error}: {'; '.join(getattr(error, '__notes__', ()))}", file=sys.stderr)
        return EXIT_FAILURE
    code = service_main(driver, [name])
    sys.stderr.flush()
    os._exit(code)  # what Python does at its end asks for more than the cage allows


if __name__ == "__main__":
    sys.exit(main())
