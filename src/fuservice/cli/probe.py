"""What ``fuservice prove`` has started: ``python -I -m fuservice.cli.probe TYPE …``, or ``--unit TYPE``. Not for people.

The first is the warm process of a listener.
"""

from __future__ import annotations

import sys

from fuservice.cli import unit, warm
from fuservice.drivers import catalog
from fuservice.launch.child import Contained
from fuservice.prove.probe import probe


def load(name: str) -> Contained:
    """Import the driver of type *name*, and put the probe in its place: the cage is the driver's."""
    driver = catalog.find(name)
    return Contained(lambda _name: probe(), syscalls=driver.syscalls, binds=driver.binds, warm=driver.warm)


def main() -> int:
    """Run until the listener is gone; return the exit code."""
    if sys.argv[1] == "--unit":
        _, _, name, instance = sys.argv
        return unit.serve(name, instance, load(name))
    return warm.main(load)


if __name__ == "__main__":
    sys.exit(main())
