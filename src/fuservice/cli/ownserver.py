"""What is common to mounts whose helper asks nobody who listens, but has a server of this project's started for it."""

from __future__ import annotations

from fuservice.drivers import catalog
from fuservice.errors import NoServiceError
from fuservice.proto.dialects import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.helper.request import Request


def own_server(request: Request, how: str) -> str:
    """Prepare *request* for a *how* start; return the type. NoServiceError where that is none of ours."""
    name = request.subtype
    if name not in catalog.DRIVERS:
        raise NoServiceError(f"no driver for {name}: a {how} start knows {', '.join(catalog.DRIVERS)}")
    request.dialect = request.dialect or CURRENT  # there is nothing to find out
    request.socket_path = how  # what is recorded in its place
    return name
