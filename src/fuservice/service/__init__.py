"""The public library for authors of servers: be started by a socket, ask for the image, mount, serve, leave.

The common case is one class and one call::

    class Hello(Driver):
        name = "hello"

        def lookup(self, parent, name): ...

    def main() -> int:
        return service_main(Hello)

Everything below it can be done step by step with ``Service``. Where the platform is not Linux the import works, and each
call raises ``OSError(EOPNOTSUPP)``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING or sys.platform == "linux":
    from fuservice.linux.fds import Fd
    from fuservice.service.commandline import CommandLine, parse_cmdline_opts
    from fuservice.service.driver import Driver, ImageArgument
    from fuservice.service.main import service_main
    from fuservice.service.service import Service
else:
    from fuservice.service.stub import CommandLine, Driver, Fd, ImageArgument, Service, parse_cmdline_opts, service_main

__all__ = ["CommandLine", "Driver", "Fd", "ImageArgument", "Service", "parse_cmdline_opts", "service_main"]
