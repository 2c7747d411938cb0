"""``fuservicemount SOURCE MOUNTPOINT -t TYPE [-o OPTS]``: the mount helper, a drop-in for libfuse's fuservicemount3.

On the path to a mount nothing is imported that is not needed: tests/house keeps a list.
"""

from __future__ import annotations

import os
import stat
import sys

from fuservice.cli import commandline
from fuservice.cli.commandline import CommandLine, CommandLineError, TypeNameError
from fuservice.errors import EXIT_FAILURE, EXIT_OK, LONGEST_SENTENCE, FuserviceError, RemoteProtocolError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AS_MOUNT_HELPER = "--as-mount-helper"  # scripts/mount.fuservice says so, and then its own words


def main(argv: Sequence[str]) -> int:
    """Carry out *argv* (the program's name first); return the exit code: 0 only if something is mounted now."""
    if list(argv[1:2]) == [AS_MOUNT_HELPER]:
        from fuservice.cli import mount_fuservice  # mount(8) found us by another name

        words = mount_fuservice.translate(argv[2:])
        if isinstance(words, int):
            return words
        argv = words
    program = argv[0] if argv else "fuservicemount"

    def say(sentence: str) -> None:
        print(f"{program}: {sentence}", file=sys.stderr)

    try:
        return _run(argv, say)
    except TypeNameError as error:
        print(printable(str(error), LONGEST_SENTENCE), file=sys.stderr)
        return error.exit_code
    except FuserviceError as error:
        say(printable(str(error), LONGEST_SENTENCE))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted: nothing was mounted")
        return EXIT_FAILURE


def _run(argv: Sequence[str], say: Callable[[str], None]) -> int:
    match list(argv[1:]):
        case ["--check"]:
            print("fuservicemount: expected fs type for --check", file=sys.stderr)
            return EXIT_FAILURE
        case ["--check", "-t", fstype] | ["-t", fstype, "--check"]:
            return _check(fstype)
        case [] | [_] | ["--help", *_]:
            print(commandline.USAGE.format(program=argv[0] if argv else "fuservicemount"))
            return EXIT_FAILURE
        case _:
            request = CommandLine(argv)
            if request.direct:
                from fuservice.cli.direct import mount_directly

                mount_directly(request, say)
            elif request.transient:
                from fuservice.cli.transient import mount_transiently

                mount_transiently(request, say)
            else:
                from fuservice.helper.mount import mount  # here, since --check needs none of it

                try:
                    mount(request, say)
                except RemoteProtocolError as error:  # what there is to say of a server of our own was said
                    from fuservice.cli.postmortem import explain

                    raise explain(error, request.socket_path) from None
            return EXIT_OK


def _check(fstype: str) -> int:
    """Say by the exit code whether a service for *fstype* could be asked: a socket that the real uid may write to."""
    try:
        path = CommandLine(["fuservicemount", "-t", fstype]).socket_path
        served = stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116
    except TypeNameError:
        raise
    except (OSError, CommandLineError):  # a name that is too long for a socket is that of no service: nothing to say
        return EXIT_FAILURE
    return EXIT_OK if served and os.access(path, os.W_OK) else EXIT_FAILURE
