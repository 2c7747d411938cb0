"""A process of its own that walks hostile images, so that its time and memory can be measured and ended.

Usage: python walk.py CEILING_MB SECONDS, then one line of JSON per image on stdin:
``{"name": …, "path": …, "cut": bytes or null, "check": bool, "recover": bool, "edits": [[position, hex], …]}``; one line of JSON per image on
stdout. An outcome is "served", "damaged" (served, some objects refused), "refused" (ImageError) or "bug" (anything else;
SECONDS over for one image, too).
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from fuservice.drivers.ext4.check import Check
from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.errors import ImageError
from tests.drivers.ext4.view import Served, errors, survey

PIECE = 1 << 14


class HangError(BaseException):
    """The time for one image is over. (No Exception: a driver's code may handle those.)"""


def give_up(_signal: int, _frame: object) -> None:
    raise HangError


class Outcome(NamedTuple):
    """What became of one image."""

    name: str
    outcome: str
    seconds: float
    words: str
    peak_mb: int


@functools.lru_cache(maxsize=4)
def contents(path: Path) -> tuple[int, list[tuple[int, bytes]]]:
    """Return the length of the image at *path*, and the pieces of it that are not blank."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    pieces = [(at, data[at : at + PIECE]) for at in range(0, len(data), PIECE)]
    return len(data), [(at, piece) for at, piece in pieces if piece.count(0) != len(piece)]


def image_of(order: dict[str, object]) -> int:
    """Return a descriptor of an anonymous file with the image that *order* describes: no file of the caller is changed."""
    length, pieces = contents(Path(str(order["path"])))
    fd = os.memfd_create("image")
    os.truncate(fd, length)
    for at, piece in pieces:
        os.pwrite(fd, piece, at)
    edits, cut = order.get("edits"), order.get("cut")
    assert isinstance(edits, list)
    for position, patch in edits:
        os.pwrite(fd, bytes.fromhex(patch), position)
    os.truncate(fd, cut if isinstance(cut, int) else length)
    return fd


def peak_mb() -> int:
    """Return the most memory this program ever held (VmHWM; ru_maxrss would count what our parent had when it forked)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) >> 10
    raise AssertionError("no VmHWM")


def walk(order: dict[str, object], seconds: float) -> Outcome:
    """Walk one image, for so many *seconds* of the processor at most: the reader waits for nothing, and the machine may be busy."""
    fd = image_of(order)
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        filesystem = Ext4Filesystem(fd, check=bool(order["check"]), recover=bool(order.get("recover")))
        view = survey(Served(filesystem))
        for _finding in Check(filesystem.volume, seconds).findings():  # has limits of its own
            pass
        damage = [*errors(view), *filesystem.volume.complaints]
        outcome, words = (
            ("damaged", f"{len(view)} entries; {damage[0]}") if damage else ("served", f"{len(view)} entries")
        )
    except ImageError as error:
        outcome, words = "refused", str(error)
    except (Exception, HangError):  # noqa: BLE001  # what this process is for
        outcome, words = "bug", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.close(fd)
    return Outcome(str(order["name"]), outcome, time.process_time() - began, words, peak_mb())


def main() -> None:
    """Answer line by line; the ceiling is of address space, so that an attempt to take more is a MemoryError here."""
    ceiling = int(sys.argv[1]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    signal.signal(signal.SIGPROF, give_up)
    for line in sys.stdin:
        print(json.dumps(walk(json.loads(line), float(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
