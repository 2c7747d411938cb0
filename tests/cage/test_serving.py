"""Servers in the whole cage: all that the kernel can ask, whatever a driver does in answer, and no call that is forbidden."""

from __future__ import annotations

import codecs
import datetime
import gc
import os
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuservice.cage.plan import Profile, plan
from fuservice.drivers.catalog import find
from fuservice.drivers.memtree import Memtree
from fuservice.fuse.abi import OP_LIMIT, Op
from fuservice.fuse.filesystem import Filesystem
from fuservice.fuse.session import Session
from fuservice.service.log import log
from tests.cage.caged import PLAIN, Caged, serve
from tests.fuse.fakekernel import SILENT, Reply, init_body, read_body, request
from tests.support.mounts import detach_all

pytestmark = pytest.mark.needs("root", "userns")

ROOT = Profile()
starters = pytest.mark.parametrize("profile", [ROOT, PLAIN], ids=["root", "plain"])


class Dies:
    """Raises where nobody can catch it."""

    def __del__(self) -> None:
        raise ValueError("from a finalizer")


def late_import() -> None:
    """Import what nobody has imported."""
    sys.modules.pop("this", None)
    import this  # noqa: F401


def deep(n: int = 0) -> int:
    """Never end."""
    return deep(n + 1) + 1


def unraisable() -> None:
    """Drop an object whose finalizer raises, and one in a cycle."""
    Dies()
    ring: list[object] = [Dies()]
    ring.append(ring)
    del ring
    gc.collect()


def print_traceback() -> None:
    """Print a traceback, with its lines of source as far as there are any."""
    try:
        raise KeyError("x")  # noqa: TRY301
    except KeyError:
        os.write(2, traceback.format_exc().encode())


MISDEEDS: dict[str, tuple[Callable[[], object], str]] = {
    "an exception": (lambda: 1 // 0, "ZeroDivisionError"),
    "no end": (deep, "RecursionError"),
    "a late import": (late_import, "No module named 'this'"),
    "an unknown codec": (lambda: codecs.lookup("no-such-codec"), "unknown encoding: no-such-codec"),
    "a rare codec": (lambda: b"\xff".decode("cp437") + "\x80".encode("unicode_escape").decode("utf-16-le")[9], "IndexError"),
    "too much memory at once": (lambda: bytes(1 << 40), "MemoryError"),
    "a finalizer": (unraisable, "from a finalizer"),
    "a traceback": (print_traceback, "KeyError: 'x'"),
    "a warning": (lambda: warnings.warn("odd", UserWarning, stacklevel=1), "odd"),
    "local time": (lambda: 1 // (time.localtime(0).tm_hour + datetime.datetime.fromtimestamp(0).astimezone().hour), "ZeroDivisionError"),
}  # fmt: skip


class Misbehaves(Filesystem):
    """Does something that a driver should not, whatever it is asked."""

    def __init__(self, misdeed: Callable[[], object]) -> None:
        self.misdeed = misdeed

    def __getattribute__(self, name: str) -> object:
        if name in {"lookup", "getattr", "read", "readdir", "statfs", "readlink", "open", "getxattr", "destroy"}:
            misdeed = object.__getattribute__(self, "misdeed")
            return lambda *_arguments: misdeed()
        return object.__getattribute__(self, name)


def asked_everything(kernel: socket.socket) -> Iterator[Reply]:
    """Ask for every operation there is, and some that there are not; yield the replies."""
    bodies = [b"", b"name\0", read_body(4096), bytes(200)]
    requests = [request(Op.INIT, body=init_body())]
    requests += [
        request(op, body=body) for body in bodies for op in range(1, OP_LIMIT + 3) if op not in (Op.INIT, Op.DESTROY)
    ]
    for raw in requests:
        kernel.send(raw)
        if int.from_bytes(raw[4:8], "little") not in SILENT:
            reply = kernel.recv(1 << 21)
            if not reply:
                return  # the server is dead: whoever asked us looks why
            yield Reply(reply)


def run(filesystem: Filesystem, profile: Profile) -> tuple[list[Reply], int, str]:
    """Serve *filesystem* in the cage to a kernel of our own; return its replies, the exit code, and what was logged."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            own = Profile(uid=profile.uid, gid=profile.gid, user_namespace=profile.user_namespace, supervised=True)
            caged = Caged(lambda: Session(3, filesystem, log=log).run(), connection=theirs.fileno(), profile=own)
        ours.settimeout(20)
        replies = []
        try:
            replies = list(asked_everything(ours))
        finally:
            ours.close()
            code = caged.ended()
    assert [violation.name for violation in caged.violations] == []
    return replies, code, caged.said()


@starters
def test_an_honest_driver_is_asked_everything(profile: Profile) -> None:
    replies, code, _ = run(Memtree({"name": b"x" * 10_000}), profile)
    assert code == 0
    assert sum(not reply.error for reply in replies) > 10


@starters
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_whatever_a_driver_does_in_error_is_an_error_of_that_request(misdeed: str, profile: Profile) -> None:
    act, told = MISDEEDS[misdeed]
    replies, code, said = run(Misbehaves(act), profile)
    assert code == 0 and len(replies) > 100
    assert told in said


EXHAUST = """
import os
from fuservice.cage.plan import Profile
from tests.cage.caged import PLAIN, Caged

def exhaust():
    pieces = []
    try:
        while True:
            pieces.append(bytes(50_000))
    except MemoryError:
        del pieces
    os.write(2, b"and on")

caged = Caged(exhaust, profile={profile})
print(caged.ended(), caged.said())
"""


@pytest.mark.parametrize("profile", ["Profile()", "PLAIN"])
def test_memory_that_runs_out_is_an_exception(profile: str) -> None:
    """In a process of one thread, as those are that servers are cloned from: with several, malloc(3) goes other ways."""
    command = [sys.executable, "-c", EXHAUST.format(profile=profile)]
    path = os.pathsep.join(sys.path)
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 and on\n", "")


@starters
def test_what_a_driver_may_not_do_ends_it_by_name(profile: Profile) -> None:
    with pytest.raises(AssertionError, match="openat"):
        run(Misbehaves(lambda: os.open("/etc/passwd", os.O_RDONLY)), profile)


def walk(tree: Path) -> int:
    """Ask for all that a program can ask for below *tree*; return how many entries there were."""
    entries = [tree, *tree.rglob("*")]
    for path in entries:
        path.lstat()
        os.listxattr(path, follow_symlinks=False)
        if path.is_symlink():
            path.readlink()
        elif path.is_file():
            fd = os.open(path, os.O_RDONLY)
            while os.read(fd, 1 << 20):
                pass
            if os.fstat(fd).st_size:
                os.lseek(fd, 0, os.SEEK_HOLE)
            os.close(fd)
    os.statvfs(tree)
    with pytest.raises(FileNotFoundError):
        (tree / "no such name").stat()
    with pytest.raises(OSError, match="Read-only"):
        (tree / "new").mkdir()
    return len(entries)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give an ext4 image with some of everything in it."""
    tree, path = tmp_path / "tree", tmp_path / "image"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "large").write_bytes(os.urandom(3 << 20))
    (tree / "link").symlink_to("large")
    for n in range(300):
        (tree / "deep/er" / f"file{n}").write_bytes(bytes([n % 256]) * n)
    subprocess.run(["truncate", "-s", "16M", path], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, path], check=True)
    return path


@pytest.mark.needs("fuse", "e2fsprogs", "installed")
@pytest.mark.parametrize("name", ["memtree", "ext4"])
def test_a_mount_from_the_conversation_to_the_end(name: str, image: Path, mount_point: Path, tmp_path: Path) -> None:
    words = [mount_point] if name == "memtree" else [image, mount_point]
    server, helper = serve(find(name), words, tmp_path / "sockets")
    try:
        assert (helper.returncode, helper.stderr) == (0, ""), server.said()
        assert walk(mount_point) > (300 if name == "ext4" else 5)
    finally:
        detach_all(mount_point)
        code = server.ended()
    assert ([violation.name for violation in server.violations], code, server.said()) == ([], 0, "")


@pytest.mark.needs("fuse", "e2fsprogs", "installed")
@pytest.mark.parametrize("damage", ["cut", "zeros", "options", "none"])
def test_a_mount_that_is_refused(damage: str, image: Path, mount_point: Path, tmp_path: Path) -> None:
    if damage == "cut":
        os.truncate(image, 1000)
    elif damage == "zeros":
        image.write_bytes(bytes(1 << 20))
    more = {"options": ["-o", "nonsense"], "none": ["-h"]}.get(damage, [])
    server, helper = serve(find("ext4"), [image, mount_point, *more], tmp_path / "sockets")
    code = server.ended()
    assert helper.returncode == 1
    assert code in (0, 1) and server.said()
    assert [violation.name for violation in server.violations] == []


def test_the_ext4_driver_has_few_system_calls() -> None:
    allowed = plan(Profile(syscalls=find("ext4").syscalls))[-1].describe()
    print(allowed)
    assert allowed.count(",") + 1 <= 40
