"""The public names on a platform that cannot do it: everything imports, every call says so (libfuse's fuse_service_stub.c)."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def unsupported(*args: object, **keywords: object) -> NoReturn:
    """Raise OSError(EOPNOTSUPP), whatever was asked."""
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


class _Unsupported(type):
    """Every attribute of the class is a call that fails, and so is making an instance."""

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return unsupported

    def __call__(cls, *args: object, **keywords: object) -> NoReturn:
        unsupported()


class Service(metaclass=_Unsupported):
    """See service.service."""


class Fd(metaclass=_Unsupported):
    """See linux.fds."""


class CommandLine(metaclass=_Unsupported):
    """See service.commandline."""


class ImageArgument:
    """See service.driver: may be made, since drivers do while they are imported."""

    def __init__(self, **keywords: bool) -> None:
        pass


class Driver:
    """See service.driver: may be subclassed, and not made."""

    def __init__(self, *args: object) -> None:
        unsupported()


parse_cmdline_opts = unsupported
service_main = unsupported
