"""libfuse's example servers service_ll, service_hl, null and the draft's hello, written with our library: for the recorded helper to talk to.

Run as a program with the recorded words. They go as far as the goodbye: what follows is the kernel's conversation, and the
recorded helper has no kernel to mount with.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from fuservice.errors import FuserviceError, UsageError
from fuservice.proto import layouts
from fuservice.service import CommandLine, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuservice.linux.fds import Fd


class Example(NamedTuple):
    """What tells the examples apart; *codes* go into the goodbye: bad words, no mount point, no mount."""

    positional: int
    kind: int
    codes: tuple[int, int, int]
    open_flags: int = os.O_EXCL
    missing: str = "{}: opening file: {}."
    unknown: int = 1  # the code for an option that nobody knows


EXAMPLES = {
    "draft-hello": Example(2, layouts.S_IFDIR, (errno.EINVAL, errno.EINVAL, 1), 0, "{}: {}", errno.EINVAL),
    "service_ll": Example(2, layouts.S_IFDIR, (1, 1, 1)),
    "service_hl": Example(2, layouts.S_IFDIR, (1, 2, 4), unknown=3),
    "null": Example(1, layouts.S_IFREG, (1, 2, 4)),
}
OWN_OPTIONS = ("require_bdev", "sync")


def main(words: Sequence[str]) -> int:
    """Serve as the example that words[0] names; return the exit code."""
    try:
        service = Service.accept()
    except FuserviceError as error:
        return fail(f"fuse: {error}")
    if service is None:
        return 1
    with service:
        example = EXAMPLES[words[0].removesuffix("-passrights")]
        try:
            return serve(service, example, service.append_args(words))
        except FuserviceError as error:  # what the helper did ends it: there is nobody to say goodbye to
            return fail(f"fuse: {error}")


def fail(sentence: str) -> int:
    """Say *sentence*; return the exit code for it."""
    print(sentence, file=sys.stderr)
    return 1


def serve(service: Service, example: Example, args: Sequence[str]) -> int:
    """Hold the conversation to its end."""
    bad_words, no_mount_point, no_mount = example.codes
    line = service.parse_cmdline_opts(args, OWN_OPTIONS)
    if line.show_help or line.show_version:
        service.send_goodbye(0)
        return 0
    if len(line.positional) > example.positional:
        return give_up(service, bad_words, f"fuse: invalid argument `{line.positional[example.positional]}'")
    image = None
    if example.positional == 2:
        try:
            image = open_image(service, line, example)
        except OSError as error:
            code = 1 if example.open_flags else error.errno or 1  # the draft's goodbye carries an errno
            return give_up(service, code, example.missing.format(error.filename, error.strerror))
    try:
        if len(line.positional) < example.positional:
            return give_up(service, no_mount_point, "error: no mountpoint specified")
        line.check_known()
        return mount(service, example, line, no_mount)
    except UsageError as error:
        return give_up(service, example.unknown, f"fuse: {error}")
    finally:
        if image is not None:
            image.close()


def open_image(service: Service, line: CommandLine, example: Example) -> Fd:
    """Return the source, opened for writing if that is possible."""
    source = line.positional[0]
    ask = service.request_blockdev if "require_bdev" in line.own else service.request_file
    read_only = example.open_flags and line.flags & layouts.MS_RDONLY
    for flags in (os.O_RDONLY,) if read_only else (os.O_RDWR, os.O_RDONLY):
        ask(source, flags | example.open_flags)
        try:
            return service.receive_file(source)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES) or flags == os.O_RDONLY:
                raise
    raise AssertionError("the last try returns or raises")


def mount(service: Service, example: Example, line: CommandLine, no_mount: int) -> int:
    """Have it mounted; return the exit code."""
    service.finish_file_requests()
    service.expect_mount_format(example.kind)
    with service.take_fusedev():
        try:
            service.session_mount(line, line.positional[-1])
        except OSError as error:
            return give_up(service, no_mount, f"fuse: {error.strerror}")
        service.send_goodbye(0)
    return 0


def give_up(service: Service, code: int, sentence: str) -> int:
    """Say *sentence* to the log and goodbye with *code* to the helper."""
    service.send_goodbye(code)
    return fail(sentence)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
