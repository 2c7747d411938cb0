"""A place with a listener, for mounts that are listed, unmounted, and left by servers that die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.peers.programs import AS_NOBODY, MAY_MOUNT, Ended
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import Mount, detach_all, mounts_at_or_below
from tests.support.processes import Program, servers
from tests.support.waiting import wait_until, without_signs_of_life
from tests.support.words import plain

PLACE = Path("/run/yard")  # not below pytest's directories: ordinary users cannot enter those
ETC = PLACE / "etc"  # what lies here hides /etc's
RECORDS = Path("/run/fuservice/mounts")
UTAB = Path("/run/mount/utab")
PATIENCE = 20
MS_BIND = 4096
NOBODY = 65534

Row = dict[str, str | int | None]


class Yard:
    """The place. /run is a tmpfs of our own, /dev/fuse is everybody's, and /etc has what a test needs in it."""

    def __init__(self, listener: Program, image: Path) -> None:
        self.listener, self.image = listener, image
        self._points: list[Path] = []

    def point(self, name: str | bytes = "mnt", *, owner: int = 0, mode: int = 0o755) -> Path:
        """Make a directory to mount on."""
        path = PLACE / os.fsdecode(name)
        path.mkdir(exist_ok=True)
        path.chmod(mode)
        os.chown(path, owner, owner)
        self._points.append(path)
        return path

    def run(self, *words: str | Path, uid: int = 0, umask: int = 0o22) -> Ended:
        """Run a program as root, or as a user who may mount; it may not hang."""
        before = [*AS_NOBODY, *MAY_MOUNT] if uid else []
        command = [*before, *(os.fspath(word) for word in words)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False, umask=umask, cwd=PLACE,
            process_group=0,
        )  # fmt: skip
        return Ended(done.returncode, os.fsdecode(done.stdout), plain(without_signs_of_life(os.fsdecode(done.stderr))))

    def mount(self, point: Path, *words: str | Path, fstype: str = "memtree", uid: int = 0, umask: int = 0o22) -> Ended:
        """Run the mount helper for *point*."""
        source = [self.image] if fstype == "ext4" else []
        return self.run(PROGRAMS / "fuservicemount", *source, point, "-t", fstype, *words, uid=uid, umask=umask)

    def mounted(self, name: str | bytes = "mnt", *words: str, fstype: str = "memtree") -> Path:
        """Make a mount point, and mount on it."""
        point = self.point(name)
        assert self.mount(point, *words, fstype=fstype) == (0, "", "")
        return point

    def cli(self, *words: str | Path, uid: int = 0) -> Ended:
        """Run fuservice(1)."""
        return self.run(PROGRAMS / "fuservice", *words, uid=uid)

    def rows(self, *words: str) -> list[Row]:
        """Return what ``fuservice list`` says, in JSON."""
        ended = self.cli("list", "--json", *words)
        assert (ended.code, ended.stderr) == (0, "")
        rows: list[Row] = json.loads(ended.stdout)
        return rows

    def here(self) -> list[Mount]:
        """Return what is mounted on the mount points."""
        return [mount for point in dict.fromkeys(self._points) for mount in mounts_at_or_below(point)]

    def servers(self) -> list[int]:
        """Return the pids of the servers that run."""
        return servers(self.listener.pid)

    def server_of(self, point: Path) -> int:
        """Return the pid of the server of the mount on *point*, as ``list`` has it."""
        (pid,) = [row["pid"] for row in self.rows() if row["mount point"] == os.fspath(point)]
        assert isinstance(pid, int) and pid in self.servers()
        return pid

    def settle(self) -> None:
        """Detach what is mounted, let servers end, and forget everything."""
        for pid in self.servers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for point in self._points:
            detach_all(point)
            with contextlib.suppress(OSError):
                point.rmdir()
        self._points.clear()
        wait_until(lambda: not self.servers(), "the end of the servers")
        for record in RECORDS.iterdir() if RECORDS.is_dir() else ():
            record.unlink()
        UTAB.write_text("")
        (ETC / "fuse.conf").write_text("")


def _fill(place: Path) -> Path:
    for directory in ("etc/fuservice/manifests", "tree"):
        (place / directory).mkdir(parents=True)
    (place / "etc/fuse.conf").touch()
    for access in ("ro", "rw"):  # now: an overlay need not notice what comes later
        (place / f"etc/fuservice/manifests/loop{access}").write_text(f"source loop {access}\n")
    (place / "tree/file").write_bytes(b"content")
    image = place / "image"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", place / "tree", image], check=True, capture_output=True)  # fmt: skip
    image.chmod(0o644)
    os.mknod(place / "fuse", 0o20666, os.makedev(10, 229))
    (place / "fuse").chmod(0o666)
    UTAB.parent.mkdir()
    UTAB.touch()
    return image


@contextlib.contextmanager
def yard(log: Path) -> Iterator[Yard]:
    """Set it up; all of it goes when this is left."""
    with contextlib.ExitStack() as stack:

        def cover(source: str, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
            kernel.mount(source, target, fstype, flags, data)
            stack.callback(kernel.umount2, target, kernel.MNT_DETACH)

        cover("tmpfs", "/run", "tmpfs", 0, "mode=755")
        image = _fill(PLACE)
        cover("tmpfs", "/var/lib", "tmpfs", 0, "mode=755")  # for receipts
        cover("overlay", "/etc", "overlay", 0, f"lowerdir={ETC}:/etc")
        cover(str(PLACE / "fuse"), "/dev/fuse", None, MS_BIND)
        types = ("memtree", "ext4")
        listener = Program([PROGRAMS / "fuservice", "listen", *types, "--socket-mode", "666"], log)
        stack.callback(listener.stop)
        sockets = [Path("/run/filesystems") / name for name in types]
        wait_until(lambda: listener.ended() or all(path.is_socket() for path in sockets), "the sockets", 20)
        assert not listener.ended(), listener.said()
        made = Yard(listener, image)
        stack.callback(made.settle)
        yield made
