"""What the caller typed: ``fuservicemount SOURCE MOUNTPOINT -t TYPE [-o OPTS]``, with libfuse's quirks, and nothing opened yet.

The words are not ours alone: the service gets them, less the ``-t TYPE`` pairs and our own ``--NAME=VALUE``.
"""

from __future__ import annotations

import os

from fuservice.cli import runtime
from fuservice.errors import EXIT_FAILURE, UsageError
from fuservice.helper.options import Options
from fuservice.helper.request import Request
from fuservice.proto import argv, layouts
from fuservice.proto.dialects import DIALECTS, DRAFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from fuservice.proto.dialects import Dialect

STEP_TIMEOUT: Final = 300.0  # seconds for each step of a service's

USAGE: Final = "Usage: {program} source mountpoint -t type [-o options]"


class CommandLineError(UsageError):
    """The words make no request; with libfuse's exit code for it."""

    exit_code = EXIT_FAILURE


class TypeNameError(CommandLineError):
    """The type is no file name. libfuse's helper says so without its own name in front."""


class CommandLine(Request):
    """One request to mount, as typed."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Read *argv*, the program's name first; CommandLineError where it makes no request."""
        self.program = argv[0]
        self.socket_directory = ""
        self.step_timeout = STEP_TIMEOUT
        self.dialect, self.direct, self.transient = None, False, False
        self.typed = len(argv)  # how many words there were, ours apart: the argv file leaves room for all of them
        words, fstype = _take_type(argv[1:])
        words = self._take_ours(words)
        self.subtype = subtype_of(fstype)
        if self.dialect is DRAFT:
            self.subtype = fstype.rpartition(".")[2]
            words = [word for word in words if word != "-t"]  # its helper drops a dangling one
        self.positional, self.options = _positional_and_options(words)
        self.mount_point = self.positional[-1] if self.positional else None
        self.source = self.positional[0] if len(self.positional) == 2 else None
        if "remount" in self.options:
            raise CommandLineError("option remount: a mount cannot be changed: unmount it and mount it again")
        self.socket_path = _socket_path(self.socket_directory or runtime.socket_directory(self.subtype), self.subtype)
        self.argv_words = [os.fsencode(word) for word in (self.subtype, *words)]
        self.argv_file = _argv_file(self.argv_words, self.typed)

    def _take_ours(self, words: list[str]) -> list[str]:
        """Return *words* without our own options, which end where "--" is."""
        end = words.index("--") if "--" in words else len(words)
        theirs = []
        for word in words[:end]:
            name, equals, value = word.partition("=")
            if name == "--socket-dir" and equals:
                self.socket_directory = value
            elif name == "--timeout" and equals:
                self.step_timeout = seconds(value)
            elif word in ("--direct", "--transient"):
                self.direct, self.transient = word == "--direct", word == "--transient"
            elif name == "--dialect" and equals:
                self.dialect = _dialect(value)
            else:
                theirs.append(word)
        self.typed -= end - len(theirs)
        return theirs + words[end:]


def _socket_path(directory: str, subtype: str) -> str:
    """Return where the service for *subtype* listens; CommandLineError where that is no name for a socket."""
    path = os.fsencode(f"{directory}/{subtype}")
    if len(path) > layouts.LONGEST_SOCKET_PATH:
        raise CommandLineError(f"filesystem type name `{subtype}' is too long.")
    return os.fsdecode(path)


def _argv_file(words: list[bytes], typed: int) -> bytes:
    """Return the file that tells the service; CommandLineError where that is more than a service is told."""
    try:
        return argv.encode(words, typed)
    except UsageError as error:
        raise CommandLineError(str(error)) from None


def _take_type(words: Sequence[str]) -> tuple[list[str], str]:
    """Return *words* without every ``-t TYPE`` pair, and the first TYPE. A dangling last ``-t`` stays, as with libfuse."""
    left: list[str] = []
    fstype: str | None = None
    index = 0
    while index < len(words):
        if words[index] == "-t" and index + 1 < len(words):
            fstype = words[index + 1] if fstype is None else fstype
            index += 2
        else:
            left.append(words[index])
            index += 1
    if fstype is None:
        raise CommandLineError("cannot determine filesystem type.")
    return left, fstype


def subtype_of(fstype: str) -> str:
    """Return *fstype* without one leading "fuse." or "fuseblk."; CommandLineError where that is no file name."""
    for prefix in ("fuse.", "fuseblk."):
        if fstype.startswith(prefix):
            subtype = fstype[len(prefix) :]
            break
    else:
        subtype = fstype
    if "/" in subtype or subtype in (".", ".."):
        raise TypeNameError(f"{fstype}: fs subtype cannot contain path separators")
    return subtype


def _positional_and_options(words: Sequence[str]) -> tuple[list[str], Options]:
    positional: list[str] = []
    options = Options()
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            positional += words[index + 1 :]
            break
        if word == "-o":
            index += 1
            options.add(words[index] if index < len(words) else "")
        elif word.startswith("-o"):
            options.add(word[2:])
        elif word == "-r":
            options.add("ro")
        elif not word.startswith("-") or word == "-":
            positional.append(word)
        index += 1
    return positional, options


def seconds(value: str) -> float:
    """Return *value*, a time limit, as a number; CommandLineError where it is none."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 86_400:
        raise CommandLineError(f"--timeout={value}: expected seconds, more than 0 and at most 86400")
    return number


def _dialect(value: str) -> Dialect:
    for dialect in DIALECTS:
        if dialect.name == value:
            return dialect
    raise CommandLineError(f"--dialect={value}: expected {' or '.join(dialect.name for dialect in DIALECTS)}")
