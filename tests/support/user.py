"""A fresh ordinary user: a name, a home and a runtime directory that are there for one test, on a machine made for them.

Nothing of it touches the machine: what is changed in /etc, /dev and /usr/bin is covered, in the mount namespace of the tests.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.support import kernel
from tests.support.capabilities import PROGRAMS, REPOSITORY
from tests.support.mounts import Mount, detach_all, mounts
from tests.support.waiting import wait_until, without_signs_of_life

if TYPE_CHECKING:
    from tests.support.compare import Facts

UID = 1_000_000 + os.getpid()  # no other run of the tests, on a machine that they share, has this user
NAME = "fresh"
PATIENCE = 40.0
STANDING = {"fuservice", "fuservice-servers"}  # directories that are made once
MS_BIND = 4096


class Ended(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    stdout: str
    stderr: str


class User:
    """The user; everything that is theirs lies in *place*."""

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.runtime = place, place / "home", place / "runtime"
        self.environment = {
            "HOME": os.fspath(self.home), "XDG_RUNTIME_DIR": os.fspath(self.runtime), "LANG": "C.UTF-8", "USER": NAME,
            "PATH": f"{PROGRAMS}:/usr/bin:/bin", "SHELL": "/bin/sh",
        }  # fmt: skip

    def command(self, *words: str | Path, extra: Sequence[str] = ()) -> list[str]:
        """Return the words that run *words* as this user, in their home; *extra* is for setpriv(1)."""
        become = [
            "setpriv",
            f"--reuid={UID}",
            f"--regid={UID}",
            "--clear-groups",
            *extra,
            "env",
            "-i",
            "-C",
            os.fspath(self.home),
        ]
        return [
            *become,
            *(f"{key}={value}" for key, value in self.environment.items()),
            *(os.fspath(word) for word in words),
        ]

    def run(self, *words: str | Path, extra: Sequence[str] = (), text: str = "") -> Ended:
        """Run a program to its end, which must come."""
        done = subprocess.run(
            self.command(*words, extra=extra), input=os.fsencode(text), capture_output=True, timeout=PATIENCE, check=False,
            process_group=0,
        )  # fmt: skip
        return Ended(done.returncode, os.fsdecode(done.stdout), without_signs_of_life(os.fsdecode(done.stderr)))

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a program, which the caller ends; all of its standard streams are pipes."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*words), stdin=pipe, stdout=pipe, stderr=pipe, text=True, process_group=0)

    def make(self, name: str, content: bytes | None = None) -> Path:
        """Make a file of theirs at home, or a directory."""
        path = self.home / name
        path.mkdir() if content is None else path.write_bytes(content)
        os.chown(path, UID, UID)
        return path

    def facts(self, top: Path, *before: str | Path, extra: Sequence[str] = ()) -> dict[bytes, Facts]:
        """Return path → facts of the tree *top* (tests.support.compare), as this user sees it; *before* go before the command."""
        python: list[str | Path] = [PROGRAMS / "python", "-m", "tests.support.compare", top]
        words = self.command(*before, "env", "-C", REPOSITORY, *python, extra=extra)
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        facts: dict[bytes, Facts] = pickle.loads(done.stdout)
        return facts

    def processes(self) -> dict[int, str]:
        """Return the pids of all processes of this user, with their names; servers that have an own uid are not seen."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = dict(line.split(":\t", 1) for line in (path / "status").read_text().splitlines())
                if status["Uid"].split()[0] == str(UID) and status["State"][0] not in "ZX":
                    found[int(path.name)] = status["Name"]
        return found

    def mounts(self) -> list[Mount]:
        """Return the mounts in the tests' namespace that lie below their directories."""
        return [mount for mount in mounts() if mount.point.startswith(f"{self.place}/")]

    def check_nothing_left(self) -> None:
        """Fail unless all is, within some seconds, as it was at the beginning: servers notice that their mounts have gone."""
        wait_until(lambda: not self.processes(), f"the end of {self.processes()}", 10)
        assert self.left() == []

    def left(self) -> list[str]:
        """Return what is there that was not there at the beginning: processes, mounts, directories in the runtime directory."""
        lines = [f"process {pid}: {name}" for pid, name in self.processes().items()]
        lines += [f"mount: {mount.point}" for mount in self.mounts()]
        # os.walk(), which minds no directory that goes away under it.
        found = [f"{top}/{name}" for top, *names in os.walk(self.runtime) for name in [*names[0], *names[1]]]
        return lines + [f"runtime: {path}" for path in found if Path(path).name not in STANDING]


def _detach_below(place: Path) -> None:
    for path in place.iterdir():
        detach_all(path)


@contextlib.contextmanager
def fresh_user(*, fusermount: str = "setuid", fuse_conf: str = "", device_mode: int = 0o666) -> Iterator[User]:
    """Give the user. *fusermount*: "setuid" as distributions have it, "plain" without the bit, "hidden" unreadable."""
    place = Path(tempfile.mkdtemp(prefix="fuservice-user-"))
    with contextlib.ExitStack() as stack:
        stack.callback(place.rmdir)

        def cover(
            source: Path | str, target: Path | str, fstype: str | None = None, flags: int = MS_BIND, data: str = ""
        ) -> None:
            kernel.mount(os.fspath(source), os.fspath(target), fstype, flags, data)
            stack.callback(kernel.umount2, os.fspath(target), kernel.MNT_DETACH)

        cover("tmpfs", place, "tmpfs", 0, "mode=755")
        stack.callback(_detach_below, place)
        etc = place / "etc"
        etc.mkdir()
        for name, line in (("passwd", f"{NAME}:x:{UID}:{UID}::{place}/home:/bin/sh"), ("group", f"{NAME}:x:{UID}:")):
            (etc / name).write_text(Path(f"/etc/{name}").read_text() + f"{line}\n")
        (etc / "fuse.conf").write_text(fuse_conf)
        cover("overlay", "/etc", "overlay", 0, f"lowerdir={etc}:/etc")
        os.mknod(place / "fuse", 0o20666, os.makedev(10, 229))
        (place / "fuse").chmod(device_mode)
        cover(place / "fuse", "/dev/fuse")
        if fusermount != "setuid":
            other = place / "fusermount3"
            other.write_bytes(Path("/usr/bin/fusermount3").read_bytes() if fusermount == "plain" else b"")
            other.chmod(0o755 if fusermount == "plain" else 0o644)
            cover(other, "/usr/bin/fusermount3")
        user = User(place)
        for directory in (user.home, user.runtime):
            directory.mkdir(mode=0o700)
            os.chown(directory, UID, UID)
        yield user
