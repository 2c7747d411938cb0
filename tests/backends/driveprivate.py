"""A caller who mounts in a namespace of his own: ``python -m tests.backends.driveprivate SOURCE MOUNTPOINT -t TYPE -- COMMAND…``.

Prints what was said. Without a COMMAND the mount stays.
"""

from __future__ import annotations

import os
import sys

from fuservice.cli.commandline import CommandLine
from fuservice.cli.private import Private
from fuservice.errors import FuserviceError


def main(words: list[str]) -> int:
    """Mount, run the command, end."""
    at = words.index("--") if "--" in words else len(words)
    request = CommandLine(["drive", *words[:at]])
    try:
        private = Private(
            request, lambda line: print("said:", line, flush=True), remove=True, report=lambda: str(os.getpid())
        )
    except FuserviceError as error:
        print("error:", error)
        return error.exit_code
    print(private.told, private.holder.pid, flush=True)
    private.leave()
    if at == len(words):
        private.stay()
        return 0
    with private:
        pid = os.fork()
        if pid == 0:
            private.held().join()
            os.execvp(words[at + 1], words[at + 1 :])
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
