"""The warm process of ``fuservice prove``: ``python -I -m fuservice.cli.probe TYPE …``. Not for people."""

from __future__ import annotations

import sys

from fuservice.drivers import catalog
from fuservice.errors import EXIT_OK, FuserviceError
from fuservice.launch import warm
from fuservice.launch.child import Contained
from fuservice.prove.probe import probe


def load(name: str) -> Contained:
    """Import the driver of type *name*, and put the probe in its place: the cage is the driver's."""
    driver = catalog.find(name)
    return Contained(lambda _name: probe(), syscalls=driver.syscalls, binds=driver.binds, warm=driver.warm)


def main() -> int:
    """Run until the listener is gone; return the exit code."""
    try:
        warm.run(sys.argv[1:], load)
    except FuserviceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
