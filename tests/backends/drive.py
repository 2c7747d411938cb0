"""A caller of the mount helper who says which back end attaches: ``python -m tests.backends.drive VIA SOURCE MOUNTPOINT -t TYPE``.

Prints one line of JSON: the back end, what it lost, what was said, and the error, if any.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fuservice.backends.choose import choose
from fuservice.cli import warm
from fuservice.cli.afterwards import Afterwards, last_words
from fuservice.cli.commandline import CommandLine
from fuservice.errors import FuserviceError
from fuservice.helper.mount import mount
from fuservice.launch.direct import Direct
from fuservice.launch.state import States, directory

if TYPE_CHECKING:
    from fuservice.helper.request import Request
    from fuservice.linux.sockets import SeqPacket


def main(via: str, words: Sequence[str]) -> dict[str, object]:
    """Mount; return what there is to tell."""
    said: list[str] = []
    servers: list[Direct] = []

    def connect(request: Request) -> SeqPacket:
        servers.append(
            Direct(request.subtype, partial(warm.load, request.subtype), States(directory()), Afterwards(backend))
        )
        return servers[-1].connection

    try:
        backend = choose(via or None)
        request = CommandLine(["drive", *words])
        mount(request, said.append, connect, backend.attach)
    except FuserviceError as error:
        said += [line for server in servers for line in server.end()]
        return {"error": str(error), "said": said}
    said += [line for server in servers for line in server.leave(last_words(request.mount_point, None))]
    return {"via": backend.name, "lost": backend.lost, "said": said}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
