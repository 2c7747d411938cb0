"""Real mounts: what programs see of a memtree through the kernel, and what happens when things break."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import Directory, File, Memtree, Special, Symlink
from fuservice.fuse import abi, session
from fuservice.fuse.abi import Init
from fuservice.fuse.codec import Policy
from fuservice.fuse.filesystem import FOREVER, Attr, Entry, Filesystem, StatFs
from tests.fuse.kernelmount import ENDED_WELL, served
from tests.support import kernel
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from fuservice.drivers.memtree import Inode, Tree

pytestmark = pytest.mark.needs("root", "fuse")
MakePoint = Callable[[str], Path]

TWICE = File(b"two names", mode=0o640, uid=12, gid=0x12345678)
WHEN = 4_102_444_800 * 10**9 + 123_456_789  # in 2100
TREE: dict[str, bytes | Inode | Tree] = {
    "plain": b"hello",
    "empty": b"",
    "large": bytes(range(256)) * 5000,
    "odd \n \xff\t'name'".encode("latin-1").decode("utf-8", "surrogateescape"): b"odd",
    "one": TWICE,
    "suid": File(b"", mode=0o6755),
    "times": File(b"", mtime_ns=WHEN, atime_ns=-1, ctime_ns=1, btime_ns=WHEN + 1),
    "attributed": File(b"", xattrs={b"user.one": b"1", b"user.empty": b"", b"trusted.big": b"x" * 60_000}),
    "sparse": File(size=(6 << 30) + 5, extents={1 << 20: b"near", 5 << 30: b"far" * 4000}),
    "pipe": Special(abi.S_IFIFO, mode=0o600),
    "disk": Special(abi.S_IFBLK, rdev=os.makedev(8, 1)),
    "link": Symlink(b"deep/" + b"x/" * 1000 + b"x"),
    "deep": {"er": {"two": TWICE, "leaf": b"leaf"}},
    "closed": Directory({}, mode=0o1700),
}


@pytest.mark.parametrize("timeout", [0, FOREVER])
def test_a_tree_is_what_it_was_said_to_be(mount_point: Path, timeout: int) -> None:
    with served(mount_point, Memtree(TREE, timeout_ns=timeout)) as mount:
        for _ in range(2):  # the second time much of it comes from the kernel's caches
            assert set(os.listdir(mount_point)) == set(TREE)
            for name, value in TREE.items():
                if isinstance(value, bytes):
                    assert (mount_point / name).read_bytes() == value
            assert sorted(os.listdir(mount_point / "deep/er")) == ["leaf", "two"]
            one, two = (mount_point / "one").lstat(), (mount_point / "deep/er/two").lstat()
            assert (one.st_ino, one.st_nlink, one.st_mode) == (two.st_ino, 2, stat.S_IFREG | 0o640)
            assert (one.st_uid, one.st_gid, one.st_size) == (12, 0x12345678, 9)
            times = (mount_point / "times").lstat()
            assert (times.st_mtime_ns, times.st_atime_ns, times.st_ctime_ns) == (WHEN, -1, 1)
            assert (mount_point / "pipe").is_fifo()
            assert stat.S_IMODE((mount_point / "closed").lstat().st_mode) == 0o1700
            assert os.fspath((mount_point / "link").readlink()) == "deep/" + "x/" * 1000 + "x"
            assert (mount_point / "deep").lstat().st_nlink == 3
            assert not (mount_point / "none").exists()
        assert mount.log() == []


def test_what_the_policy_hides(make_mount_point: MakePoint) -> None:
    point = make_mount_point("strict")
    with served(point, Memtree(TREE)) as mount:
        assert stat.S_IMODE((point / "suid").lstat().st_mode) == 0o755
        assert "disk" in os.listdir(point)
        with pytest.raises(PermissionError):
            (point / "disk").lstat()
        assert mount.log() == []
    point = make_mount_point("lax")
    with served(point, Memtree(TREE), policy=Policy(allow_suid=True, allow_dev=True)):
        assert stat.S_IMODE((point / "suid").lstat().st_mode) == 0o6755
        assert (point / "disk").lstat().st_rdev == os.makedev(8, 1)


@pytest.mark.parametrize("only", [{0}, {0, 65534}, None])
def test_what_root_has_read_is_not_shown_to_others(mount_point: Path, only: set[int] | None) -> None:
    """allow_root: the kernel keeps what it was told, for everybody; so it is asked each time."""
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    tree = Memtree({"file": b"secret", "dir": {"inner": b""}})
    with served(mount_point, tree, policy=Policy(only=only), options=",allow_other"):
        for words in (["cat", "file"], ["ls", "-l", "dir"], ["stat", "file"]):
            assert subprocess.run(words, cwd=mount_point, capture_output=True, check=False).returncode == 0
            command = [*as_nobody, *words]  # from within: the way there may be closed to others
            done = subprocess.run(command, cwd=mount_point, capture_output=True, text=True, check=False)
            refused = done.returncode != 0 and "Permission denied" in done.stderr
            assert refused is (only == {0}), done


def test_extended_attributes(mount_point: Path) -> None:
    with served(mount_point, Memtree(TREE)):
        path = mount_point / "attributed"
        assert sorted(os.listxattr(path)) == ["trusted.big", "user.empty", "user.one"]
        assert os.getxattr(path, "user.one") == b"1"
        assert os.getxattr(path, "user.empty") == b""
        assert os.getxattr(path, "trusted.big") == b"x" * 60_000
        assert os.listxattr(mount_point / "plain") == []
        with pytest.raises(OSError, match="No data") as caught:
            os.getxattr(path, "user.none")
        assert caught.value.errno == errno.ENODATA


def test_holes(mount_point: Path) -> None:
    with served(mount_point, Memtree(TREE)), (mount_point / "sparse").open("rb", buffering=0) as file:
        fd, near, far, end = file.fileno(), 1 << 20, 5 << 30, (6 << 30) + 5
        assert os.lseek(fd, 0, os.SEEK_DATA) == near
        assert os.lseek(fd, near, os.SEEK_HOLE) == near + 4
        assert os.lseek(fd, near + 4, os.SEEK_DATA) == far
        assert os.lseek(fd, far + 5, os.SEEK_HOLE) == far + 12000
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(fd, far + 12000, os.SEEK_DATA)
        assert os.lseek(fd, 0, os.SEEK_END) == end
        assert os.pread(fd, 10, near - 3) == b"\0\0\0near\0\0\0"
        assert os.pread(fd, 4, far) == b"farf"
        assert os.pread(fd, 100, end - 5) == bytes(5)
        assert os.fstat(fd).st_blocks == 1 + 24


class Birth(ctypes.Structure):
    """Struct statx of linux/stat.h, as far as the time of birth."""

    _fields_ = (
        ("mask", ctypes.c_uint32), ("skipped", ctypes.c_uint8 * 76), ("seconds", ctypes.c_int64), ("nsec", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 164),
    )  # fmt: skip


def birth(path: Path) -> int | None:
    """Return the time of birth in nanoseconds, by statx(2); None where there is none."""
    answer = Birth()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = 0x100 | 0x2000  # AT_SYMLINK_NOFOLLOW, AT_STATX_FORCE_SYNC
    assert ctypes.sizeof(answer) == 256
    assert libc.statx(-100, os.fsencode(path), flags, abi.STATX_BTIME | 0x7FF, ctypes.byref(answer)) == 0
    return answer.seconds * 10**9 + answer.nsec if answer.mask & abi.STATX_BTIME else None


def test_time_of_birth(mount_point: Path) -> None:
    with served(mount_point, Memtree(TREE)):
        assert birth(mount_point / "times") == WHEN + 1
        assert birth(mount_point / "plain") is None


class Traced(Memtree):
    """A memtree that shows by statfs how many look-ups it was asked for."""

    asked = 0

    def lookup(self, parent: int, name: bytes) -> Entry:
        self.asked += 1
        return super().lookup(parent, name)

    def statfs(self) -> StatFs:
        return StatFs(files=self.asked)


@pytest.mark.parametrize("plus", [True, False])
def test_large_directories(mount_point: Path, monkeypatch: pytest.MonkeyPatch, plus: bool) -> None:  # noqa: FBT001 - a parameter
    both = Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO
    monkeypatch.setattr(session, "WANTED", session.WANTED & ~both | (Init.DO_READDIRPLUS if plus else 0))
    names = [f"entry-{i:05}-{'x' * (i % 200)}" for i in range(10_000)]
    with served(mount_point, Traced(dict.fromkeys(names, b""), timeout_ns=FOREVER)) as mount:
        assert sorted(os.listdir(mount_point)) == names
        assert os.statvfs(mount_point).f_files == (10_000 if plus else 0)
        assert sum(entry.stat().st_nlink for entry in os.scandir(mount_point)) == 10_000
        assert os.statvfs(mount_point).f_files == 10_000  # nothing changes, so the kernel has kept the listing
        assert mount.log() == []


def test_listing_chooses_by_itself(mount_point: Path) -> None:
    names = [f"{i:04}" for i in range(3000)]
    with served(mount_point, Traced(dict.fromkeys(names, b""))):
        for _ in range(2):
            assert sorted(entry.name for entry in os.scandir(mount_point) if entry.stat().st_nlink) == names
        assert os.statvfs(mount_point).f_files > 0


def test_listings_are_resumed(mount_point: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fdopendir.restype = libc.readdir64.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    libc.telldir.argtypes = libc.readdir64.argtypes = libc.closedir.argtypes = (ctypes.c_void_p,)
    libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)

    def next_name(directory: int) -> str | None:
        entry = libc.readdir64(directory)
        return os.fsdecode(ctypes.string_at(entry + 19)) if entry else None  # struct linux_dirent64.d_name

    with served(mount_point, Memtree({f"{i:04}": b"" for i in range(3000)})):
        directory = libc.fdopendir(os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY))
        places = {}
        while True:
            place = libc.telldir(directory)
            name = next_name(directory)
            if name is None:
                break
            places[place] = name
        assert len(places) == 3002
        for place, name in list(places.items())[::-97]:
            libc.seekdir(directory, place)
            assert next_name(directory) == name
        libc.closedir(directory)


class Broken(Memtree):
    """A memtree some of whose files and directories break the driver."""

    def __init__(self) -> None:
        super().__init__(
            {"bad": b"1234", "good": b"good", "deep": b"", "dir": {"a": b""}, "huge": b"", "restart": b"x"}
        )

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        if node == 2:
            raise ValueError("extent beyond the end of the image")
        if node == 7:
            raise OSError(512, "ERESTARTSYS, which would leave the reader waiting")
        return super().read(node, handle, offset, into)

    def getattr(self, node: int) -> Attr:
        if node == 4:
            return self.getattr(node)  # for ever
        return Attr(ino=6, mode=0o100644, size=1 << 63) if node == 6 else super().getattr(node)


def test_a_broken_file_is_eio_and_the_mount_lives_on(mount_point: Path) -> None:
    with served(mount_point, Broken()) as mount:
        for _ in range(3):
            for name in ("bad", "restart"):
                with pytest.raises(OSError, match="Input/output") as caught:
                    (mount_point / name).read_bytes()
                assert caught.value.errno == errno.EIO
            for name in ("deep", "huge"):
                with pytest.raises(OSError, match="Input/output"), (mount_point / name).open("rb") as file:
                    os.fstat(file.fileno())
            assert (mount_point / "good").read_bytes() == b"good"
        assert len(mount.log()) == 4
        assert "READ /bad: ValueError('extent beyond the end of the image') (test_kernel.py:" in mount.log()[0]
        assert not mount.ended()


def test_writing_is_refused_even_if_somebody_mounted_it_writable(mount_point: Path) -> None:
    with served(mount_point, Memtree(TREE)) as mount:
        changes: list[Callable[[], object]] = [
            lambda: (mount_point / "plain").write_bytes(b"x"), lambda: (mount_point / "new").touch(),
            (mount_point / "newdir").mkdir, (mount_point / "plain").unlink, lambda: (mount_point / "plain").chmod(0o777),
            lambda: (mount_point / "plain").rename(mount_point / "moved"), lambda: os.truncate(mount_point / "plain", 1),
            lambda: os.link(mount_point / "plain", mount_point / "second"), lambda: os.setxattr(mount_point / "plain", "user.x", b""),
            lambda: (mount_point / "new").symlink_to("a"), lambda: os.mkfifo(mount_point / "new"), (mount_point / "deep/er").rmdir,
        ]  # fmt: skip
        for change in changes:
            with pytest.raises(OSError, match="Read-only") as caught:
                change()
            assert caught.value.errno == errno.EROFS
        assert mount.log() == []


def test_unmounting_ends_the_loop(mount_point: Path) -> None:
    with served(mount_point, Memtree(TREE)) as mount:
        assert (mount_point / "plain").read_bytes() == b"hello"
        kernel.umount2(os.fspath(mount_point))
        assert mount.wait() == ENDED_WELL
        assert mount.log() == []


class Closing(Memtree):
    """A memtree that leaves a mark when it is closed."""

    def __init__(self, mark: Path) -> None:
        super().__init__(TREE)
        self.mark = mark

    def destroy(self) -> None:
        time.sleep(0.2)
        self.mark.touch()


@pytest.mark.needs("loop")
def test_unmounting_a_block_device_waits_for_the_driver_to_close(mount_point: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    losetup = ["losetup", "--find", "--show", str(tmp_path / "disk")]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    try:
        with served(mount_point, Closing(tmp_path / "mark"), device=device) as mount:
            assert (mount_point / "plain").read_bytes() == b"hello"
            kernel.umount2(os.fspath(mount_point))
            assert (tmp_path / "mark").exists()
            assert mount.wait() == ENDED_WELL
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_aborting_ends_the_loop(mount_point: Path) -> None:
    with served(mount_point, Memtree(TREE)) as mount:
        assert (mount_point / "plain").read_bytes() == b"hello"
        mount.abort()
        assert mount.wait() == ENDED_WELL
        assert mount.log() == ["the kernel's connection was aborted"]
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mount_point)


class Sleeper(Memtree):
    """A memtree whose file takes for ever to read."""

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        time.sleep(60)
        return into[:0]


@pytest.mark.parametrize("how", ["abort", "kill"])
def test_a_server_that_hangs_hangs_nobody_once_it_is_gone(mount_point: Path, how: str) -> None:
    with served(mount_point, Sleeper({"slow": b"x"})) as mount:
        caught: list[int | None] = []

        def read() -> None:
            try:
                (mount_point / "slow").read_bytes()
            except OSError as error:
                caught.append(error.errno)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.1)
        if how == "abort":
            mount.abort()
        else:
            os.kill(mount.pid, 9)
        reader.join(5)
        assert not reader.is_alive()
        assert caught[0] in (errno.ECONNABORTED, errno.ENOTCONN, errno.EIO)
        with contextlib.suppress(ProcessLookupError):
            os.kill(mount.pid, 9)
        wait_until(mount.ended, "the end of the sleeper")


class Counting(Memtree):
    """A memtree that shows by statfs how many nodes the kernel was given and how many it gave back."""

    forgotten = 0

    def forget(self, node: int) -> None:
        self.forgotten += 1

    def statfs(self) -> StatFs:
        return StatFs(files=self.forgotten)


def test_the_kernel_forgets(mount_point: Path) -> None:
    with served(mount_point, Counting({f"{i}": b"" for i in range(100)}, timeout_ns=FOREVER)):
        for entry in os.scandir(mount_point):
            entry.stat()
        assert os.statvfs(mount_point).f_files == 0
        # Remounting drops the superblock's unused dentries and inodes: this mount's only, not the machine's.
        kernel.mount("none", os.fspath(mount_point), None, 0x20 | 0x1)
        wait_until(lambda: os.statvfs(mount_point).f_files == 100, "FORGET of 100 nodes")


def test_opens_without_a_message(mount_point: Path) -> None:
    class Still(Memtree):
        open, opendir = Filesystem.open, Filesystem.opendir

    with served(mount_point, Still(TREE, timeout_ns=FOREVER)) as mount:
        for _ in range(3):
            assert (mount_point / "plain").read_bytes() == b"hello"
            assert len(os.listdir(mount_point)) == len(TREE)
        assert mount.log() == []


def test_programs_are_content(mount_point: Path, tmp_path: Path) -> None:
    with served(
        mount_point, Memtree({name: TREE[name] for name in ("plain", "large", "one", "deep", "link", "times")})
    ):
        subprocess.run(["cp", "-a", f"{mount_point}/.", tmp_path / "copy"], check=True, timeout=30)
        subprocess.run(["diff", "-r", "--no-dereference", mount_point, tmp_path / "copy"], check=True, timeout=30)
        assert (tmp_path / "copy/times").lstat().st_mtime_ns == WHEN
