"""One mount, from a request to the end of the conversation: pin, connect, talk, let go."""

from __future__ import annotations

from fuservice.errors import NoServiceError, SystemCallError
from fuservice.helper import commandline, fuseconf, manifest
from fuservice.helper.caller import Caller
from fuservice.helper.grants import Grants
from fuservice.helper.mountpoint import MountPoint
from fuservice.helper.session import Session
from fuservice.linux import prctl
from fuservice.linux.sockets import SeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.helper.commandline import Request


def mount(request: Request, say: Callable[[str], None]) -> None:
    """Mount as *request* asks; FuserviceError, and nothing left, where that fails. *say* takes complaints on the way."""
    prctl.set_dumpable(0)  # we hold the caller's rights: nobody of the same uid shall trace us or reopen what we open
    rules = manifest.load(request.subtype)
    caller = Caller(fuseconf.read(say))
    # Everything that a path of the caller's stands for is settled here, before the service is there to interfere.
    grants, mount_point = Grants(request, rules), MountPoint(request.mount_point)
    try:
        socket = _connect(request)
        Session(request, grants, mount_point, caller=caller, socket=socket, say=say, read_only=rules.read_only).run()
    finally:
        grants.close()
        mount_point.close()


def _connect(request: Request) -> SeqPacket:
    path = request.socket_path
    try:
        return SeqPacket.connect(path, commandline.HELLO_TIMEOUT)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoServiceError(f"no safe filesystem driver for {request.subtype} available.") from None
    except OSError as error:
        raise SystemCallError(f"{path}: {error.strerror}") from None
