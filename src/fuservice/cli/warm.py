"""The warm process of ``fuservice listen``, which starts it: ``python -I -m fuservice.cli.warm TYPE …``. Not for people."""

from __future__ import annotations

import sys

from fuservice.drivers import catalog
from fuservice.errors import EXIT_OK, FuserviceError
from fuservice.fuse import watch
from fuservice.launch import warm
from fuservice.launch.child import Contained
from fuservice.service.main import service_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def load(name: str) -> Contained:
    """Import the driver of type *name*, which may serve others too."""
    driver = catalog.find(name)
    return Contained(
        lambda asked: service_main(driver, [asked]), prepare=watch.arm,
        syscalls=driver.syscalls, binds=driver.binds, threads=driver.threads, warm=driver.warm,
    )  # fmt: skip


def main(load: Callable[[str], Contained] = load) -> int:
    """Run until the listener is gone; return the exit code. *load* imports the driver for a type."""
    try:
        warm.run(sys.argv[1:], load)
    except FuserviceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
