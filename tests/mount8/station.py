"""A machine on which fuservice is installed as an administrator would: mount.fuservice in /sbin, a listener on its usual socket.

All of it lies in this process's own mount namespace (tests/conftest.py): an overlay on /usr/sbin, and a tmpfs as /run.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.peers.programs import AS_NOBODY, Ended
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import Mount, detach_all, mounts_at_or_below
from tests.support.processes import Program
from tests.support.waiting import wait_until
from tests.support.words import plain

PLACE = Path("/run/mount8")  # not below pytest's directories: ordinary users cannot enter those
HELPER = "/sbin/mount.fuservice"
MARK = PLACE / "mark"  # there if somebody ran the program named "none"
PATIENCE = 30
CONTENT = b"from the image\n"
EXECUTED = re.compile(r'execve\("((?:[^"\\]|\\.)*)", (\[.*?\]), 0x\S+.*\) = 0$', re.MULTILINE)


class Station:
    """The machine. ``image`` is an ext4 image, ``point`` and ``other`` are directories to mount on."""

    def __init__(self, listener: Program) -> None:
        self.image, self.point, self.other = PLACE / "image", PLACE / "mnt", PLACE / "other"
        self.listener = listener
        self.trace = PLACE / "trace"

    def run(self, *words: str | Path, uid: int = 0) -> Ended:
        """Run a command as root or as nobody; it may not hang."""
        command = [*(AS_NOBODY if uid else ()), *(os.fspath(word) for word in words)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}, cwd=PLACE,
        )  # fmt: skip
        return Ended(done.returncode, os.fsdecode(done.stdout), plain(os.fsdecode(done.stderr)))

    def mount(self, *words: str | Path, uid: int = 0) -> Ended:
        """Run mount(8)."""
        return self.run("mount", *words, uid=uid)

    def traced(self, *words: str | Path) -> tuple[Ended, list[list[str]]]:
        """Run a command as root; return the words of every program that came to run, too."""
        ended = self.run("strace", "-f", "-qq", "-s4096", "-e", "trace=execve", "-o", self.trace, *words)
        return ended, [ast.literal_eval(found[2]) for found in EXECUTED.finditer(self.trace.read_text())]

    def fstab(self, *lines: str) -> Path:
        """Write the file that ``mount -a -T`` reads."""
        file = PLACE / "fstab"
        file.write_text("".join(f"{line} 0 0\n" for line in lines))
        return file

    def mounted(self) -> list[Mount]:
        """Return what is mounted on the mount points."""
        return [mount for point in (self.point, self.other) for mount in mounts_at_or_below(point)]

    def utab(self) -> str:
        """Return what userspace has noted of mounts."""
        return Path("/run/mount/utab").read_text()

    def settle(self) -> None:
        """Detach what is mounted, and forget it."""
        for point in (self.point, self.other):
            detach_all(point)
        Path("/run/mount/utab").write_text("")


def _make_image(image: Path) -> None:
    tree = PLACE / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(CONTENT)
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, image], check=True, capture_output=True)


@contextlib.contextmanager
def _covered(fstype: str, target: str, data: str) -> Iterator[None]:
    kernel.mount(fstype, target, fstype, 0, data)
    try:
        yield
    finally:
        kernel.umount2(target, kernel.MNT_DETACH)


@contextlib.contextmanager
def station(log: Path, links: Sequence[str] = ("mount.fuservice",)) -> Iterator[Station]:
    """Set the machine up; all of it goes when this is left."""
    with _covered("tmpfs", "/run", "mode=755"):
        for name in ("sbin", "mnt", "other"):
            (PLACE / name).mkdir(parents=True)
        (PLACE / "sbin/none").write_text(f"#!/bin/sh\necho ran >{MARK}\n")
        (PLACE / "sbin/none").chmod(0o755)
        for name in links:
            (PLACE / "sbin" / name).symlink_to(PROGRAMS / "mount.fuservice")
        _make_image(PLACE / "image")
        Path("/run/mount").mkdir(exist_ok=True)
        Path("/run/mount/utab").touch()
        with _covered("overlay", "/usr/sbin", f"lowerdir={PLACE}/sbin:/usr/sbin"):
            listener = Program([PROGRAMS / "fuservice", "listen", "ext4"], log)
            try:
                wait_until(lambda: listener.ended() or Path("/run/filesystems/ext4").is_socket(), "the socket", 20)
                made = Station(listener)
                yield made
                made.settle()
            finally:
                listener.stop()


def shows(mount: Mount) -> tuple[str, str, str, set[str]]:
    """Return where *mount* is, its type and source, and what is out of the ordinary about it."""
    return mount.point, mount.fstype, mount.source, set(mount.options.split(",")) - {"relatime"}
