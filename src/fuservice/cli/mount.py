"""``fuservice mount SOURCE``: look what it is, find or start its server, mount it read-only, and print where.

Standard output has the mount points and nothing else, one a line. What goes wrong with one source does not keep the others
from being mounted.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys

from fuservice.backends.backend import NAMES
from fuservice.cli import made, mine, recognize, restarts, runtime
from fuservice.cli.attempt import Attempt
from fuservice.cli.commandline import STEP_TIMEOUT, CommandLine, CommandLineError, seconds, subtype_of
from fuservice.cli.waiting import Waiting
from fuservice.drivers import catalog, kinds
from fuservice.errors import (
    LONGEST_SENTENCE,
    FuserviceError,
    ImageError,
    NoServiceError,
    PolicyError,
    RemoteProtocolError,
    SystemCallError,
    UsageError,
    printable,
)
from fuservice.helper import manifest
from fuservice.helper.mount import mount
from fuservice.linux.fds import Closed
from fuservice.proto.layouts import SOCKET_DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

STANDARD_INPUT: Final = "-"
PRIVATE: Final = "namespace"  # the back end whose mounts are seen by nobody else


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "mount", help="mount an image, and print where", description="Mount images or block devices, each served by a process in a cage, and print where.",
        usage="fuservice mount [OPTIONS] SOURCE... [MOUNTPOINT]",
        epilog="The last word is a mount point if it is a directory; without one, a directory is made, and removed on unmount.",
    )  # fmt: skip
    command.add_argument("words", nargs="+", metavar="SOURCE", help=argparse.SUPPRESS)
    add_options(command)
    how = command.add_mutually_exclusive_group()
    how.add_argument("--direct", action="store_true", help="start a server even if a service listens")
    how.add_argument("--transient", action="store_true", help="have systemd start the server, for this mount alone")
    command.add_argument("--via", metavar="HOW", help=f"who attaches it: {', '.join(NAMES)}")
    command.add_argument("--private", action="store_true", help="in a namespace of its own: see fuservice enter")
    command.add_argument("--restart", action="store_true", help="start another server where one dies; implies --direct")
    command.add_argument("--json", action="store_true", help="print for programs")
    command.set_defaults(run=run)


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options that are about one source, however it is mounted."""
    command.add_argument("-t", dest="type", metavar="TYPE", help="its type (default: found out, in the cage)")
    command.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS",
                         help="mount options, the driver's own too (default: ro,noexec,nosymfollow)")  # fmt: skip
    command.add_argument("--rw", action="store_true", help="writable, if the driver can")
    command.add_argument("--name", metavar="NAME", help="call the directory that is made NAME")
    command.add_argument("--timeout", metavar="SECONDS", help=f"for each step of the server ({STEP_TIMEOUT:.0f})")
    command.add_argument("-v", "--verbose", action="store_true", help="tell on standard error what is done")


def run(options: argparse.Namespace) -> None:
    """Mount, and print where. FuserviceError of the last source that could not be mounted; others are told on the way."""
    sources, point = split(options.words)
    check(options, sources, point)
    if options.restart and (options.private or options.transient or options.via == PRIVATE):
        raise UsageError("mount: --restart is for a server that is started directly, and a mount that all see")
    attempts: list[Attempt] = []
    failure: FuserviceError | None = None
    for source in sources:
        if failure is not None:
            say(str(failure))
        attempts.append(attempt := Attempt(source, options))
        failure = mount_one(attempt, point)
        if attempt.private is not None:
            attempt.private.stay()
            say(f"{attempt.mount_point}: is seen by those who enter it: fuservice enter {attempt.mount_point}")
        if failure is None and not options.json:
            print(attempt.mount_point, flush=True)
    if options.json:
        import json

        print(json.dumps([attempt.as_json() for attempt in attempts], indent=2))
    if failure is not None:
        raise failure


def mount_one(attempt: Attempt, point: str | None) -> FuserviceError | None:
    """Mount one source, and write the receipt; return what went wrong. A private mount is the attempt's ``private`` then."""
    failure: FuserviceError | None = None
    try:
        _mount(attempt, point)
    except CommandLineError as error:  # fuservicemount has another exit code for it
        failure = UsageError(f"mount: {error}")
    except FuserviceError as error:
        failure = attempt.explain(error)
    for complaint in attempt.complaints():
        say(complaint)
    if failure is not None:
        attempt.failed(failure)
    return failure


def check(options: argparse.Namespace, sources: list[str], point: str | None) -> None:
    """UsageError where the options make no sense together."""
    try:
        seconds(options.timeout or "1")
    except CommandLineError as error:
        raise UsageError(f"mount: {error}") from None
    if options.name is not None:
        made.check_name(options.name)
        if point is not None or len(sources) > 1:
            raise UsageError("mount: --name is for one source without a mount point")
    if options.private and options.via not in (None, PRIVATE):
        raise UsageError(f"mount: --private is --via={PRIVATE}, and not --via={options.via}")


def say(sentence: str) -> None:
    """Tell one sentence on standard error."""
    print(f"fuservice: {printable(sentence, LONGEST_SENTENCE)}", file=sys.stderr, flush=True)


def split(words: list[str]) -> tuple[list[str], str | None]:
    """Return the sources and the mount point (None: one is to be made). UsageError where the words make no sense.

    The last of several words is the mount point if it is a directory now: an image is none.
    """
    if STANDARD_INPUT in words:
        raise UsageError(
            "mount: -: standard input cannot be mounted, since filesystems are read here and there: save it as a file"
        )
    *before, last = words
    if not before:
        return words, None
    try:
        is_directory = stat.S_ISDIR(os.stat(last).st_mode)  # noqa: PTH116
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise SystemCallError(f"{last}: a mount is there whose server has died: fuservice umount {last}") from None
        is_directory = False
    if not is_directory:
        return words, None
    if len(before) > 1:
        raise UsageError(f"mount: {last}: is one directory, for {len(before)} sources: mount one after the other, or leave it out")  # fmt: skip
    return before, last


def _mount(attempt: Attempt, point: str | None) -> None:
    """Mount one source; FuserviceError, and nothing left, where that fails."""
    typed = attempt.typed
    if point is None and typed.name is None and not typed.private:
        _check_not_mounted(attempt.source)
    with recognize.open_source(attempt.source) as source:
        attempt.grant(source)
        probe = None if typed.type else recognize.Probe(source, attempt.source, attempt.offset())
    with probe or Closed():
        from fuservice.backends import choose  # as others below: loaded while the probe looks

        backend = choose.choose(PRIVATE if typed.private else typed.via)
        attempt.take_backend(backend)
        kind = attempt.kind = _recognized(attempt, probe) if probe else subtype_of(typed.type)
        if attempt.writable and manifest.load(kind).read_only:
            raise PolicyError(f"{attempt.source}: the driver for {kind} only reads: leave --rw (or -o rw) out")
        if point is None:
            attempt.make(made.make(typed.name or made.name_for(attempt.source)))
        else:
            attempt.mount_point = os.path.abspath(point)  # noqa: PTH100
        try:
            with Waiting(attempt.source):
                (_serve_privately if backend.name == PRIVATE else _serve)(attempt, kind)
        except BaseException:
            attempt.unmake()
            raise


def _check_not_mounted(source: str) -> None:
    """PolicyError where the caller has mounted this very path already: whoever wants it twice says under which name."""
    is_shown = source.isprintable() and "\\" not in source  # in mountinfo: then no receipt need be read
    there = mine.mounts_of(source, {} if is_shown else mine.open_receipts())
    if there:
        raise PolicyError(
            f"{source}: is mounted already, on {there[-1]}: to mount it once more, name a mount point, or --name=NAME"
        )


def _recognized(attempt: Attempt, probe: recognize.Probe) -> str:
    """Return the type that the source has; FuserviceError with the way out where nobody serves it."""
    with Waiting(attempt.source):
        word = probe.word()
    attempt.tell(f"it is {word}: a process in a cage has looked at it")
    if word in catalog.DRIVERS or runtime.listening(word):
        return word
    raise (NoServiceError if word in kinds.FILESYSTEMS else ImageError)(kinds.sentence(word, attempt.source))


def _serve(attempt: Attempt, kind: str) -> None:
    """Have a service that listens, or a server of our own, serve the mount."""
    typed = attempt.typed
    socket = None if typed.direct or typed.transient or typed.restart else runtime.listening(kind)
    if socket is not None and _ask(attempt, kind, socket):
        return
    if kind not in catalog.DRIVERS:
        raise NoServiceError(f"{attempt.source}: no driver for type {kind}: there are {', '.join(catalog.DRIVERS)}, and nobody listens at {SOCKET_DIRECTORY}/{kind}")  # fmt: skip
    if typed.transient:
        from fuservice.cli.transient import mount_transiently

        attempt.served_by_systemd()
        mount_transiently(_request(attempt, kind, "--transient"), attempt.complain, attach=attempt.attach)
        attempt.succeeded()
        return
    from fuservice.cli.direct import mount_directly

    if typed.restart:
        restarts.check(attempt.source, kind)
    attempt.served_by(None)
    mount_directly(
        _request(attempt, kind, "--direct"), attempt.complain, attempt.attach, attempt.succeeded, attempt.backend, attempt.keep(),
        restart=typed.restart,
    )  # fmt: skip


def _ask(attempt: Attempt, kind: str, socket: str) -> bool:
    """Have the service at *socket* serve the mount; return False where nobody listens, and we can."""
    attempt.served_by(socket)
    request = _request(attempt, kind, f"--socket-dir={os.path.dirname(socket)}")  # noqa: PTH120
    try:
        mount(request, attempt.complain, attach=attempt.attach)
    except NoServiceError:
        if kind not in catalog.DRIVERS:
            raise
        attempt.tell("nobody listens there any more")
        return False
    except RemoteProtocolError as error:
        from fuservice.cli.postmortem import explain

        raise explain(error, socket) from None
    attempt.succeeded()
    return True


def _serve_privately(attempt: Attempt, kind: str) -> None:
    """Have a server of our own serve a mount in a namespace of its own, which goes with us unless it is told to stay."""
    from fuservice.cli.private import Private

    attempt.served_by(None)
    request = _request(attempt, kind, "--direct")
    mounted = Private(
        request,
        attempt.complain,
        remove=attempt.made,
        attach=attempt.attach,
        report=attempt.report,
        keep=attempt.keep(),
    )
    try:
        attempt.take_report(mounted.told)
        for line in mounted.leave(attempt.succeeded()):
            attempt.complain(line)
    except BaseException:
        mounted.close()
        raise
    attempt.private = mounted


def _request(attempt: Attempt, kind: str, how: str) -> CommandLine:
    """Return the request in the words of fuservicemount(8). Paths are absolute: what mountinfo shows means the same to all."""
    timeout = attempt.typed.timeout
    words = ["fuservice", "-t", kind, "-o", attempt.option_words(), how, *([f"--timeout={timeout}"] if timeout else [])]
    return CommandLine([*words, "--", os.path.abspath(attempt.source), attempt.mount_point])  # noqa: PTH100
