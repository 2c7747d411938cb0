"""Recorded conversations of libfuse's C programs, and how what was recorded is said so that it can be compared.

tests/transcripts holds them as they were recorded. What a peer sent at step *n* becomes one line: the bytes, and for each
descriptor its link, type, access and, of a memfd, the content and the seals.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from tests.peers.wire import Packet


DIRECTORY = Path(__file__).resolve().parents[1] / "transcripts"
UTAB = "/run/mount/utab"
TO_SERVER, TO_HELPER = "helper->server", "server->helper"

#: F_SEAL_SEAL: a memfd that was made without MFD_ALLOW_SEALING, as libfuse's is.
UNSEALED = 1
F_GET_SEALS = fcntl.F_GET_SEALS


class Memfd(TypedDict):
    """The content of a recorded memfd."""

    size: int
    hex: str


class RecordedFd(TypedDict, total=False):
    """A descriptor that came with a packet."""

    link: str
    st_mode: str
    f_getfl: str
    rdev: str
    offset: int
    seals: int
    memfd: Memfd


class RecordedPacket(TypedDict, total=False):
    """A packet, or an event: the end of one direction, or what send or recv said."""

    n: int
    dir: str
    hex: str
    len: int
    fds: list[RecordedFd]
    event: str


class Command(TypedDict):
    """A command that was run beside the mount, and what it printed."""

    cmd: str
    out: str


class Transcript(TypedDict, total=False):
    """One recording; see the INDEX of the collection for what each is about."""

    name: str
    helper: str
    helper_argv: list[str]
    cwd: str
    uid: int
    env: dict[str, str]
    fuse_conf: str
    helper_exit: int
    helper_stdout: str
    helper_stderr: str
    mountinfo: list[str]
    post: list[Command]
    server_argv: list[str]
    server_kind: str
    server_exit: int
    server_stderr: str
    listen_fds: str
    packets: list[RecordedPacket]


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all transcripts that are kept here."""
    return tuple(sorted(path.stem for path in DIRECTORY.glob("*.json")))


def load(name: str) -> Transcript:
    """Return the transcript *name*."""
    transcript: Transcript = json.loads((DIRECTORY / f"{name}.json").read_text())
    return transcript


def is_draft(transcript: Transcript) -> bool:
    """Return whether the recorded service and helper speak the draft dialect."""
    return transcript["name"].startswith("draft-")


def said(packet: RecordedPacket) -> str:
    """Return the line for a recorded packet."""
    return " + ".join([str(bytes.fromhex(packet["hex"])), *map(_recorded_fd, packet.get("fds", []))])


def heard(packet: Packet) -> str:
    """Return the line for a packet that came just now."""
    return " + ".join([str(packet.data), *map(_live_fd, packet.fds)])


def _recorded_fd(fd: RecordedFd) -> str:
    mode, flags = int(fd["st_mode"], 8), int(fd["f_getfl"], 8)
    major, minor = (int(n) for n in fd.get("rdev", "0:0").split(":"))
    line = _fd(fd["link"], mode, flags, os.makedev(major, minor))
    if "memfd" in fd:
        return f"{line} at {fd['offset']}, seals {fd['seals']}, {bytes.fromhex(fd['memfd']['hex'])!r}"
    return line


def _live_fd(fd: int) -> str:
    status = os.fstat(fd)
    link = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
    line = _fd(link, status.st_mode, fcntl.fcntl(fd, fcntl.F_GETFL), status.st_rdev)
    if link.startswith("/memfd:"):
        at, seals = os.lseek(fd, 0, os.SEEK_CUR), fcntl.fcntl(fd, F_GET_SEALS)
        return f"{line} at {at}, seals {seals}, {os.pread(fd, status.st_size, 0)!r}"
    return line


def _fd(link: str, mode: int, flags: int, rdev: int) -> str:
    """Say what a descriptor is. The permission bits of a device's node and a loop device's number are the machine's."""
    if stat.S_ISCHR(mode):
        return f"character device {os.major(rdev)}:{os.minor(rdev)} {link}, flags {flags:#o}"
    if stat.S_ISBLK(mode):
        return f"block device {os.major(rdev)} {link}, flags {flags:#o}"
    return f"{link}, mode {mode:#o}, flags {flags:#o}"


def mount_line(line: str) -> str:
    """Return what is compared of a mountinfo line: all but the ids, the device number and the propagation."""
    left, _, right = line.partition(" - ")
    _, _, _, root, point, options, *_ = left.split(" ")
    return f"{root} {point} {options} - {right}"
