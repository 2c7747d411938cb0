"""``fuservicemount --direct``: the helper starts the server itself, and needs nobody who listens."""

from __future__ import annotations

from functools import partial

from fuservice.cli import warm
from fuservice.cli.afterwards import Afterwards, last_words
from fuservice.cli.ownserver import own_server
from fuservice.errors import SystemCallError
from fuservice.helper.attach import attach
from fuservice.helper.mount import mount
from fuservice.launch.direct import Direct
from fuservice.launch.restart import Restart
from fuservice.launch.state import States, directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.backends.backend import Backend
    from fuservice.helper.request import Request
    from fuservice.helper.session import Attach
    from fuservice.linux.sockets import SeqPacket


def mount_directly(
    request: Request,
    say: Callable[[str], None],
    attach: Attach = attach,
    mounted: Callable[[], int | None] = lambda: None,
    backend: Backend | None = None,
    keep: Callable[[str], None] | None = None,
    *,
    restart: bool = False,
) -> None:
    """Mount as *request* asks, with a caged server of our own; FuserviceError, and nothing left, where that fails.

    *say* takes complaints on the way, and what the server logs until the mount is there. *attach* is the back end.
    *mounted* is called once the mount is there for good, and returns the number of its receipt, if there is one. *backend*
    detaches the mount if its server dies; without one, our own rights do. *keep* takes what is logged later, in another process.
    *restart*: another server follows one that dies.
    """
    name = own_server(request, "direct")
    servers: list[Direct] = []

    def connect(_request: Request) -> SeqPacket:
        try:
            load, following = partial(warm.load, name), None
            if restart:
                following = Restart(partial(warm.load_successor, name), request.argv_file)
            servers.append(Direct(name, load, States(directory()), Afterwards(backend), keep, following))
        except OSError as error:
            raise SystemCallError(f"cannot start a server of {name}: {error.strerror}") from None
        return servers[-1].connection

    lines: list[str] = []
    try:
        mount(request, say, connect, attach)
        words = last_words(request.mount_point, mounted())
        lines = [line for server in servers for line in server.leave(words)]
    except BaseException:
        lines = [line for server in servers for line in server.end()]
        raise
    finally:
        for line in lines:
            say(line)
