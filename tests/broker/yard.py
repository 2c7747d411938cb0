"""A broker that runs, a place for mount points, and callers: whoever connects has the ids that the test gives him.

A test plays the caller in its own process, which is root: so it can hold every descriptor that an attacker could get hold of.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fuservice.broker import wire
from fuservice.linux import statmount
from fuservice.linux.fdsockets import FdSeqPacket
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import Mount, detach_all, mounts_at_or_below
from tests.support.processes import Program, descendants
from tests.support.waiting import wait_until

ALICE, BOB, CAROL = 1_200_001, 1_200_002, 1_200_003
PATIENCE = 30.0
MS_BIND, MS_RDONLY = 4096, 1
SAFE = 1 | 2 | 4 | 8 | 256  # ro, nosuid, nodev, noexec, nosymfollow
_LISTMOUNT, _ALL = 458, (1 << 64) - 1  # listmount(2), LSMT_ROOT: linux/mount.h


class Yard:
    """The broker and the place."""

    def __init__(self, place: Path, etc: Path, program: Program) -> None:
        self.place, self.etc, self.program = place, etc, program
        self.socket = os.fspath(place / "run/broker")
        self._open: list[int] = []
        self.descriptors = self.open_in_broker()

    # ---- what a caller has ----

    def keep(self, fd: int) -> int:
        """Return *fd*, which is closed at the end of the test."""
        self._open.append(fd)
        return fd

    def release(self, fd: int) -> None:
        """Close *fd* now."""
        self._open.remove(fd)
        os.close(fd)

    def device(self, flags: int = os.O_RDWR) -> int:
        """Open a fuse device."""
        return self.keep(os.open("/dev/fuse", flags | os.O_CLOEXEC))

    def make(self, name: str = "mnt", owner: int = ALICE, mode: int = 0o755) -> Path:
        """Make a directory."""
        path = self.place / name
        path.mkdir()
        path.chmod(mode)
        os.chown(path, owner, owner)
        return path

    def file(self, name: str = "file", owner: int = ALICE, mode: int = 0o644) -> Path:
        """Make a file."""
        path = self.place / name
        path.touch()
        path.chmod(mode)
        os.chown(path, owner, owner)
        return path

    def pin(self, path: Path, flags: int = os.O_PATH | os.O_NOFOLLOW) -> int:
        """Open *path*, as a mount point is opened."""
        return self.keep(os.open(path, flags | os.O_CLOEXEC))

    # ---- what he says ----

    def connect(self, uid: int = ALICE, groups: Sequence[int] = ()) -> FdSeqPacket:
        """Connect as user *uid*, of the group with the same number and of *groups*."""
        own = os.getgroups()
        os.setgroups(groups)
        os.setegid(uid)
        os.seteuid(uid)
        try:
            connection = FdSeqPacket.connect(self.socket, PATIENCE)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(own)
        connection.deadline = time.monotonic() + PATIENCE
        return connection

    def ask(self, packet: bytes, fds: Sequence[int], uid: int = ALICE, groups: Sequence[int] = ()) -> wire.Answer:
        """Send a request and return the answer, which must come."""
        with self.connect(uid, groups) as connection:
            connection.send_with_fds(packet, fds)
            answer = wire.answer(connection.receive(wire.LARGEST))
        assert isinstance(answer, wire.Answer), "a challenge"
        return answer

    def mount(
        self, place: int, device: int | None = None, uid: int = ALICE, *, flags: int = SAFE,
        pairs: Sequence[tuple[str, str | None]] = (), source: str = "src", subtype: str = "toy",
    ) -> wire.Answer:  # fmt: skip
        """Ask for a mount."""
        request = wire.Mount(source, subtype, flags, pairs)
        return self.ask(request.encode(), [self.device() if device is None else device, place], uid)

    def unmount(self, root: int, mount_id: int, uid: int = ALICE) -> wire.Answer:
        """Ask for the end of a mount."""
        return self.ask(wire.Unmount(mount_id).encode(), [root], uid)

    # ---- what is there ----

    def here(self) -> list[Mount]:
        """Return the mounts below the place."""
        return mounts_at_or_below(self.place)[1:]

    def unique_id(self, mount: Mount) -> int:
        """Return the id of *mount* that is never used twice. statx(2) would be refused: it is somebody else's."""
        return next(one for one in _list_mounts() if _old_id(one) == mount.mount_id)

    def open_in_broker(self) -> list[str]:
        """Return what the broker has open."""
        found = []
        for path in Path(f"/proc/{self.program.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(os.readlink(path).partition(":")[0])  # noqa: PTH115
        return sorted(found)

    def servers(self) -> list[int]:
        """Return the processes that serve callers."""
        return descendants(self.program.pid)

    def settle(self) -> None:
        """Let go of everything; the broker must be as it was."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        wait_until(lambda: not self.servers(), "the end of the callers' processes", PATIENCE)
        wait_until(lambda: self.open_in_broker() == self.descriptors, "what was open is closed", PATIENCE)
        assert not self.program.ended(), self.program.said()
        for path in self.place.iterdir():
            if path.name not in ("run", "etc"):
                detach_all(path)
                if stat.S_ISDIR(path.lstat().st_mode):
                    for inner in path.iterdir():
                        inner.rmdir() if inner.is_dir() else inner.unlink()
                    path.rmdir()
                else:
                    path.unlink()
        (self.etc / "fuse.conf").write_text("")


def _list_mounts() -> list[int]:
    ids = (ctypes.c_uint64 * 4096)()
    request = ctypes.create_string_buffer(struct.pack("IIQQ", 24, 0, _ALL, 0), 24)
    count = ctypes.CDLL(None, use_errno=True).syscall(_LISTMOUNT, request, ids, ctypes.c_size_t(4096), 0)
    assert count >= 0, os.strerror(ctypes.get_errno())
    return list(ids[:count])


def _old_id(unique: int) -> int:
    try:
        return statmount.mount_id(unique)
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def yard(log: Path, policy: str = "") -> Iterator[Yard]:
    """Start a broker with this *policy* ("" for none); all of it goes when this is left."""
    place = Path(tempfile.mkdtemp(prefix="fuservice-broker-"))
    with contextlib.ExitStack() as stack:
        stack.callback(place.rmdir)

        def cover(source: Path | str, target: Path | str, fstype: str | None, flags: int = 0, data: str = "") -> None:
            kernel.mount(os.fspath(source), os.fspath(target), fstype, flags, data)
            stack.callback(kernel.umount2, os.fspath(target), kernel.MNT_DETACH)

        cover("tmpfs", place, "tmpfs", 0, "mode=755")
        etc = place / "etc"
        (etc / "fuservice").mkdir(parents=True)
        (etc / "fuse.conf").touch()
        if policy:
            (etc / "fuservice/broker.conf").write_text(policy)
        cover("overlay", "/etc", "overlay", 0, f"lowerdir={etc}:/etc")
        command: list[str | Path] = [
            PROGRAMS / "python",
            "-I",
            "-m",
            "fuservice.cli.broker",
            "--socket",
            place / "run/broker",
        ]
        program = Program(command, log)
        stack.callback(program.stop)
        wait_until(lambda: "listening on" in program.said() or program.ended(), "a broker that listens", 20)
        assert not program.ended(), program.said()
        yield Yard(place, etc, program)


def as_user(uid: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program as user *uid*."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return subprocess.run([*become, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)


def refused(broker: Yard, answer: wire.Answer, number: int, words: str) -> None:
    """Check that *answer* is that refusal, and that nothing was mounted."""
    print(f"errno {errno.errorcode.get(answer.error)}: {answer.sentence}")
    assert words in answer.sentence and answer.error == number, vars(answer)
    assert not [mount for mount in broker.here() if mount.fstype.startswith("fuse")]


def a_socket(broker: Yard) -> int:
    """Return one end of a connection."""
    ours, theirs = socket.socketpair()
    broker.keep(ours.detach())
    return broker.keep(theirs.detach())


def of_another_namespace(broker: Yard) -> int:
    """Return a directory of Alice's own, as a sandbox of hers sees it."""
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sandbox:
        assert sandbox.stdout and sandbox.stdout.readline()
        fd = broker.pin(Path(f"/proc/{sandbox.pid}/root{broker.make()}"))
        sandbox.communicate(b"\n")
    return fd
