"""One mount, from a request to the end of the conversation: pin, connect, talk, let go."""

from __future__ import annotations

from fuservice.errors import NoHelloError, NoServiceError, SystemCallError
from fuservice.helper import fuseconf, manifest
from fuservice.helper.attach import attach
from fuservice.helper.caller import Caller
from fuservice.helper.grants import Grants
from fuservice.helper.mountpoint import MountPoint
from fuservice.helper.session import HELLO_TIMEOUT, Session
from fuservice.linux import prctl
from fuservice.linux.sockets import SeqPacket
from fuservice.proto.dialects import CURRENT, DRAFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.helper.request import Request
    from fuservice.helper.session import Attach
    from fuservice.proto.dialects import Dialect

    Say = Callable[[str], None]
    Connect = Callable[[Request], SeqPacket]

RETRY_TIMEOUT = 5.0  # seconds for the hello of a service that hung up on the first


def mount(request: Request, say: Say, connect: Connect | None = None, attach: Attach = attach) -> None:
    """Mount as *request* asks; FuserviceError, and nothing left, where that fails. *say* takes complaints on the way.

    *connect* returns a connection to a server, each time another; without it, somebody listens at the request's socket.
    *attach* is the back end that makes the mount: with our own rights, unless it is another.
    """
    prctl.set_dumpable(0)  # we hold the caller's rights: nobody of the same uid shall trace us or reopen what we open
    rules = manifest.load(request.subtype)
    caller = Caller(fuseconf.read(say))
    # Everything that a path of the caller's stands for is settled here, before the service is there to interfere.
    grants, mount_point = Grants(request, rules), MountPoint(request.mount_point)

    def converse(dialect: Dialect, hello_timeout: float) -> None:
        Session(
            request, grants, mount_point, caller=caller, socket=(connect or connect_to_socket)(request), say=say, read_only=rules.read_only,
            attach=attach, dialect=dialect, hello_timeout=min(hello_timeout, request.step_timeout),
        ).run()  # fmt: skip

    try:
        _in_either_dialect(request.dialect, converse)
    finally:
        grants.close()
        mount_point.close()


def _in_either_dialect(dialect: Dialect | None, converse: Callable[[Dialect, float], None]) -> None:
    """Hold the conversation in *dialect*, or else in the current one, or else in the draft's.

    A service is one process for each connection, so nothing is lost by hanging up on it and asking again.
    """
    try:
        converse(dialect or CURRENT, HELLO_TIMEOUT)
    except NoHelloError as first:
        if dialect is not None:
            raise
        try:
            converse(DRAFT, RETRY_TIMEOUT)
        except (NoHelloError, NoServiceError):
            raise first from None  # it speaks neither: the sentence is about the dialect that we meant


def connect_to_socket(request: Request) -> SeqPacket:
    """Return a connection to whoever listens for the request's type; NoServiceError where nobody does."""
    path = request.socket_path
    try:
        return SeqPacket.connect(path, min(HELLO_TIMEOUT, request.step_timeout))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        if request.dialect is DRAFT and isinstance(error, ConnectionRefusedError):
            raise SystemCallError(f"{path}: {error.strerror}") from None
        sentence = f"no safe filesystem driver for {request.subtype} available."
        raise (SystemCallError if request.dialect is DRAFT else NoServiceError)(sentence) from None
    except OSError as error:
        raise SystemCallError(f"{path}: {error.strerror}") from None
