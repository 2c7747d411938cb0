"""What a user's own session has: ``$XDG_RUNTIME_DIR``, as far as it is that. On the path to a mount."""

from __future__ import annotations

import os
import stat

from fuservice.proto.layouts import SOCKET_DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SOCKETS: Final = SOCKET_DIRECTORY.rpartition("/")[2]  # the same name as the system's, below the runtime directory


def runtime_directory() -> str:
    """Return the directory that lives as long as the caller's session (file-hierarchy(7)); "" where there is none, and for root.

    It must be the caller's, and closed to all others: whoever could put a socket there would be asked in the place of the
    system's services. A program that has another's rights too believes no variable of its caller's.
    """
    path, uid = os.environ.get("XDG_RUNTIME_DIR", ""), os.getuid()
    if uid == 0 or uid != os.geteuid() or not path.startswith("/"):
        return ""
    try:
        status = os.lstat(path)
    except OSError:
        return ""
    return path if stat.S_ISDIR(status.st_mode) and (status.st_uid, status.st_mode & 0o7777) == (uid, 0o700) else ""


def socket_directory(name: str) -> str:
    """Return where the service for type *name* listens: the caller's own first, if there is one, else the system's."""
    own = f"{runtime_directory()}/{SOCKETS}"
    return own if own != f"/{SOCKETS}" and os.path.lexists(f"{own}/{name}") else SOCKET_DIRECTORY


def socket_directories() -> list[str]:
    """Return where services may listen for the caller: the directory of his own first, if there may be one."""
    own = runtime_directory()
    return [*([f"{own}/{SOCKETS}"] if own else []), SOCKET_DIRECTORY]


def listening(name: str) -> str | None:
    """Return the socket at which the caller may ask a service for type *name*; None where there is none. Nobody is asked."""
    for directory in socket_directories():
        path = f"{directory}/{name}"
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode) and os.access(path, os.W_OK):  # noqa: PTH116
                return path
        except OSError:
            continue
    return None
