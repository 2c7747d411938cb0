"""The warm process of ``fuservice listen``, which starts it: ``python -I -m fuservice.cli.warm TYPE …``. Not for people."""

from __future__ import annotations

import sys
from functools import partial

from fuservice.drivers import catalog
from fuservice.errors import EXIT_OK, FuserviceError
from fuservice.fuse import watch
from fuservice.launch import warm
from fuservice.launch.child import Contained
from fuservice.service.main import service_main, succeed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.service.driver import Driver


def load(name: str) -> Contained:
    """Import the driver of type *name*, which may serve others too."""
    return _contained(name, lambda driver, asked: service_main(driver, [asked]))


def load_successor(name: str) -> Contained:
    """The same, for a server that follows one that has died (``launch.restart``)."""
    return _contained(name, succeed)


def _contained(name: str, serve: Callable[[type[Driver], str], int]) -> Contained:
    driver = catalog.find(name)
    return Contained(
        partial(serve, driver), prepare=watch.arm,
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
