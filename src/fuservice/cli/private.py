"""A mount in a namespace of its own, with a server of our own: what ``run`` and ``mount --private`` have in common."""

from __future__ import annotations

import os
from functools import partial

from fuservice.backends import holder
from fuservice.cli import warm
from fuservice.cli.afterwards import Afterwards, last_words
from fuservice.cli.ownserver import own_server
from fuservice.errors import SystemCallError
from fuservice.helper.attach import attach
from fuservice.helper.mount import mount
from fuservice.launch.direct import Direct
from fuservice.launch.state import States, directory
from fuservice.linux.fds import Closed, Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.helper.request import Request
    from fuservice.helper.session import Attach


class Private(Closed):
    """A private mount: its server, who was started outside, and its holder. Closing this ends both."""

    def __init__(
        self, request: Request, say: Callable[[str], None], *, remove: bool, attach: Attach = attach,
        report: Callable[[], str] = str, keep: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        """Mount as *request* asks, on its mount point; FuserviceError, and nothing left, where that fails.

        *say* takes complaints on the way. *remove*: the mount point was made for this mount, and goes with it. *attach* and then
        *report* are called in the holder; what *report* returns is ``told`` here. *keep* takes what the server's supervisor logs
        later, in another process.
        """
        name, path = own_server(request, "private"), os.path.abspath(request.mount_point or "")  # noqa: PTH100
        try:
            # Before there is a namespace: or server and supervisor would live in it, and keep it and the mount alive.
            self._server = Direct(name, partial(warm.load, name), States(directory()), Afterwards(), keep)
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

    def _end(self, say: Callable[[str], None]) -> None:
        self._server.connection.close()
        for line in self._server.end():
            say(line)

    def leave(self, receipt: int | None = None) -> list[str]:
        """Return what the server has logged by now; what it logs from now on goes to the system's log.

        In the number *receipt* of the receipts it is written down how the mount has ended.
        """
        return self._server.leave(last_words(self.mount_point, receipt, here=False))

    def stay(self) -> None:
        """Let server, holder and mount live without us."""
        self.holder.stay()

    def held(self) -> holder.Held:
        """Return the mount as who joins it needs it."""
        return holder.Held(self.holder.pid)

    def close(self) -> None:
        self.holder.close()
        self._server.end()
