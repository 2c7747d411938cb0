"""A mount in a namespace of its own, with a server of our own: what ``run`` and ``mount --private`` have in common."""

from __future__ import annotations

import os
from functools import partial

from fuservice.backends import holder
from fuservice.cli import warm
from fuservice.drivers import catalog
from fuservice.errors import NoServiceError, SystemCallError
from fuservice.helper.attach import attach
from fuservice.helper.mount import mount
from fuservice.launch.direct import Direct
from fuservice.launch.state import States, directory
from fuservice.linux.fds import Closed, Fd
from fuservice.proto.dialects import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.helper.request import Request
    from fuservice.helper.session import Attach


class Private(Closed):
    """A private mount: its server, who was started outside, and its holder. Closing this ends both."""

    def __init__(
        self, request: Request, say: Callable[[str], None], *, remove: bool, attach: Attach = attach,
        report: Callable[[], str] = str,
    ) -> None:  # fmt: skip
        """Mount as *request* asks, on its mount point; FuserviceError, and nothing left, where that fails.

        *say* takes complaints on the way. *remove*: the mount point was made for this mount, and goes with it. *attach* and then
        *report* are called in the holder; what *report* returns is ``told`` here.
        """
        name, path = request.subtype, os.path.abspath(request.mount_point or "")  # noqa: PTH100
        if name not in catalog.DRIVERS:
            raise NoServiceError(
                f"no driver for {name}: a private mount has a server of our own, for {', '.join(catalog.DRIVERS)}"
            )
        request.dialect, request.socket_path = request.dialect or CURRENT, "direct"
        try:
            # Before there is a namespace: or server and supervisor would live in it, and keep it and the mount alive.
            self._server = Direct(name, partial(warm.load, name), States(directory()))
        except OSError as error:
            raise SystemCallError(f"cannot start a server of {name}: {error.strerror}") from None

        def inside(say: Callable[[str], None]) -> str:
            mount(request, say, lambda _request: self._server.connection, attach)
            return report()

        try:
            with Fd(os.pidfd_open(self._server.pid)) as supervisor:
                self.holder = holder.start(inside, path, say=say, supervisor=supervisor.fileno(), remove=remove)
        except BaseException:
            self._end(say)
            raise
        self._server.connection.close()
        self.told, self.mount_point = self.holder.told, path
        self._log(say)

    def _log(self, say: Callable[[str], None]) -> None:
        for line in self._server.leave():
            say(line)

    def _end(self, say: Callable[[str], None]) -> None:
        self._server.connection.close()
        for line in self._server.end():
            say(line)

    def stay(self) -> None:
        """Let server, holder and mount live without us."""
        self.holder.stay()

    def join(self) -> None:
        """Move this process, which has one thread, to where the mount is seen (``holder.Held.join``)."""
        holder.Held(self.holder.pid).join()

    def close(self) -> None:
        self.holder.close()
        self._server.end()
