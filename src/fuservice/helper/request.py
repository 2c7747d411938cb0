"""What the caller asks for, as the rest of the helper reads it. ``cli.commandline`` makes it from the words that were typed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.helper.options import Options
    from fuservice.proto.dialects import Dialect


class Request:
    """One request to mount. All of it is the caller's, nothing the service's."""

    subtype: str
    source: str | None  # the first of two positional words
    mount_point: str | None  # the last positional word
    options: Options
    argv_words: list[bytes]  # what the service is told: the subtype in the place of the program's name, then the words
    argv_file: bytes  # the same, as the file that it gets
    socket_path: str
    dialect: Dialect | None  # None: the current one, and the draft's if the service hangs up on it
    step_timeout: float  # seconds for each step of the service's
