"""What ``fuservice prove`` has started: ``python -I -m fuservice.cli.probe TYPE …``, or in a unit ``--unit TYPE
INSTANCE``, or in one of a user's own manager ``--serve TYPE``. Not for people.

The first is the warm process of a listener.
"""

from __future__ import annotations

import sys

from fuservice.cli import serve, unit, warm
from fuservice.drivers import catalog
from fuservice.errors import EXIT_FAILURE, EXIT_OK, FuserviceError
from fuservice.launch.child import Contained
from fuservice.prove.probe import probe


def load(name: str) -> Contained:
    """Import the driver of type *name*, and put the probe in its place: the cage is the driver's."""
    driver = catalog.find(name)
    return Contained(
        lambda _name: probe(), syscalls=driver.syscalls, binds=driver.binds, threads=driver.threads, warm=driver.warm
    )


def main() -> int:
    """Run until the listener is gone; return the exit code."""
    if sys.argv[1] == "--unit":
        _, _, name, instance = sys.argv
        return unit.serve(name, instance, load(name))
    if sys.argv[1] == "--serve":
        try:
            serve.serve(sys.argv[2], load(sys.argv[2]))
        except FuserviceError:  # the log has it
            return EXIT_FAILURE
        return EXIT_OK
    return warm.main(load)


if __name__ == "__main__":
    sys.exit(main())
