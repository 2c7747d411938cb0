"""What ``fuservice prove`` has started: ``python -I -m fuservice.cli.probe TYPE …``, or ``--unit TYPE``. Not for people.

The first is the warm process of a listener.
"""

from __future__ import annotations

import os
import sys

from fuservice.cage.plan import enter
from fuservice.cli import warm
from fuservice.cli.unit import profile
from fuservice.drivers import catalog
from fuservice.launch.child import Contained
from fuservice.prove.probe import probe
from fuservice.units.inside import cage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def load(name: str) -> Contained:
    """Import the driver of type *name*, and put the probe in its place: the cage is the driver's."""
    driver = catalog.find(name)
    return Contained(lambda _name: probe(), syscalls=driver.syscalls, binds=driver.binds, warm=driver.warm)


def serve_in_unit(name: str) -> NoReturn:
    """Be the probe where systemd would start a server of type *name*: build what its unit leaves to the server, and end."""
    enter(cage(profile(catalog.find(name))))
    code = probe()
    os._exit(code)  # what Python does at its end asks for more than the cage allows


def main() -> int:
    """Run until the listener is gone; return the exit code."""
    if sys.argv[1] == "--unit":
        serve_in_unit(sys.argv[2])
    return warm.main(load)


if __name__ == "__main__":
    sys.exit(main())
