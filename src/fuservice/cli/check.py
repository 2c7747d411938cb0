"""``fuservice check SOURCE``: say what it is and who serves it; read all metadata of an ext filesystem in the cage, tell what is unsound.

Nothing is mounted. The image's reader is contained as a server is. What it sends is judged here as what a stranger sends.
"""

from __future__ import annotations

import json
import os
import time

from fuservice.cli import recognize
from fuservice.drivers import kinds
from fuservice.errors import (
    EXIT_OK,
    LONGEST_SENTENCE,
    FuserviceError,
    ImageError,
    NoServiceError,
    SystemCallError,
    UsageError,
    printable,
)
from fuservice.launch.child import SUPERVISOR, Contained
from fuservice.launch.direct import Direct
from fuservice.launch.state import States
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Final

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXT: Final = ("ext2", "ext3", "ext4")
DRIVER: Final = "ext4"
_SOCKET: Final = 3
_ROOM: Final = 16_384  # bytes of a packet
_MOST_PACKETS: Final = 1_000_000
_GRACE: Final = 60  # seconds: one step of the reader, which looks at the clock between them
# What a packet is about: its first field. The others are inode, path, sentence.
_NOTE, _FINDING, _REFUSED, _END = b"note", b"finding", b"refused", b"end"
_FAILED: Final = b"failed"
_WHOLE: Final = "whole"


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("check", help="say what an image is, and whether it is whole", description=__doc__,
                                  usage="fuservice check [OPTIONS] SOURCE")  # fmt: skip
    command.add_argument("image", metavar="SOURCE", help="a file or block device")
    command.add_argument("-t", dest="type", metavar="TYPE", help="its type (default: found out, in the cage)")
    command.add_argument("--seconds", type=int, default=600, metavar="N", help="look no longer than that (600)")
    command.add_argument("--json", action="store_true", help="print for programs")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Check, and print. FuserviceError where something is unsound, or not all of it was looked at."""
    if not 0 < options.seconds < 1 << 31:
        raise UsageError(f"check: --seconds={options.seconds}: expected a number of seconds from 1 on")
    fstype = options.type or _recognize(options.image)
    if fstype not in EXT:
        raise _no_reader(fstype, options.image)
    findings: list[dict[str, str | int]] = []
    notes, objects, end = list[str](), 0, (b"", "")
    for kind, number, path, what in _packets(options.image, options.seconds):
        if kind == _FINDING:
            findings.append({"path": path, "inode": number, "what": what})
        elif kind == _NOTE:
            notes.append(what)
        else:
            objects, end = number, (kind, what)
        if kind in (_FINDING, _NOTE) and not options.json:
            print(printable(f"{path}: {what}" if path else what, LONGEST_SENTENCE))
    if end[0] == _REFUSED:
        raise ImageError(f"check: {options.image}: {end[1]}")
    if options.json:
        print(json.dumps({"image": options.image, "type": fstype, "driver": DRIVER, "objects": objects, "whole": end[1] == _WHOLE,
                          "notes": notes, "findings": findings}))  # fmt: skip
    if findings:
        raise FuserviceError(f"check: {options.image}: {objects} objects, {len(findings)} findings")
    if end[1] != _WHOLE:
        raise FuserviceError(f"check: {options.image}: {objects} objects, sound, but they are not all: see --seconds")
    if not options.json:
        print(f"{options.image}: {fstype}, served by our driver {DRIVER}: {objects} objects, sound")


def _no_reader(kind: str, image: str) -> FuserviceError:
    if kind not in kinds.KINDS:
        return NoServiceError(f"check: no reader for type {kind}: there are {', '.join(EXT)}")
    return (NoServiceError if kind in kinds.FILESYSTEMS else ImageError)(kinds.sentence(kind, image))


def _recognize(image: str) -> str:
    """Return what the image is, as a process in a cage sees it."""
    with recognize.open_source(image) as source, recognize.Probe(source, image) as probe:
        return probe.word()


def _packets(image: str, seconds: int) -> Iterator[tuple[bytes, int, str, str]]:
    """Yield what the contained reader tells: kind, inode or number, path, sentence. SystemCallError where it fails."""
    try:
        fd = Fd(os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
        reader = Direct("ext4", _load, States(""))
    except OSError as error:
        raise SystemCallError(f"check: {image}: {error.strerror}") from None
    kind = b""
    try:
        with fd:
            reader.connection.deadline = time.monotonic() + seconds + _GRACE
            reader.connection.send(b"%d" % seconds, fd.fileno())
        for _ in range(_MOST_PACKETS):
            packet = reader.connection.receive(_ROOM)
            kind, number, path, what = packet.split(b"\0", 3)
            yield kind, int(number), os.fsdecode(path), os.fsdecode(what)
            if kind in (_REFUSED, _END):
                break
        else:
            kind = _FAILED
    except (OSError, ValueError):
        kind = _FAILED
    finally:
        reader.connection.close()
        said = reader.end()
    if kind == _FAILED:
        raise SystemCallError(f"check: {image}: the reader has failed: {'; '.join(said) or 'it has said nothing'}")


def _load() -> Contained:
    """Import the reader, in its process."""
    from fuservice.drivers.ext4 import Ext4, check  # noqa: F401  # there are no imports in the cage

    return Contained(_read, syscalls=Ext4.syscalls, binds=Ext4.binds)


def _read(_name: str) -> int:
    """Be the reader: take the image over the connection, and tell what is found."""
    from fuservice.drivers.ext4.check import Check
    from fuservice.drivers.ext4.volume import Volume

    os.close(int(os.environ.pop(SUPERVISOR)))  # there will be no fuse device
    socket = FdSeqPacket(Fd(_SOCKET))
    seconds, images = socket.receive_with_fds(_ROOM)

    def tell(kind: bytes, number: int, path: bytes, what: str) -> None:
        socket.send(b"\0".join((kind, b"%d" % number, path, os.fsencode(what)[:4096])))

    try:
        volume = Volume(images[0].fileno())
    except ImageError as error:
        tell(_REFUSED, 0, b"", str(error))
        return EXIT_OK
    for warning in volume.warnings:
        tell(_NOTE, 0, b"", warning)
    check = Check(volume, int(seconds))
    for path, ino, what in check.findings():
        tell(_FINDING, ino, path, what)
    tell(_END, check.objects, b"", _WHOLE if check.whole else "in part")
    return EXIT_OK
