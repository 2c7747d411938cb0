"""The machine that the recordings were made on, as far as they saw it: /run/filesystems and /run/fuse-probe.

Only ever built inside this process's own mount namespace (tests/conftest.py), over the machine's /run, and gone again with
one MNT_DETACH.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.programs import SOURCES, Program
from tests.replay.transcripts import UTAB, Transcript, mount_line
from tests.support import kernel

PLACE = Path("/run/fuse-probe")
SOCKETS = Path("/run/filesystems")
NOBODY = 65534
MS_BIND, MS_REMOUNT, MS_RDONLY, MS_NOSUID_NODEV = 4096, 32, 1, 6

#: Serves the mount that one recording finds on its mount point.
SERVE = (
    f"import sys; sys.path.append({SOURCES!r})\n"
    "from fuservice.drivers.memtree import Memtree\n"
    "from fuservice.fuse.session import Session\n"
    "Session(int(sys.argv[1]), Memtree({}), log=print).run()"
)


#: Recording → a socket that it finds, and whether somebody listens there.
SOCKETS_THERE = {
    "check-present": ("service_ll", socket.SOCK_SEQPACKET, True),
    "check-present-order": ("service_ll", socket.SOCK_SEQPACKET, True),
    "check-nonroot-0220": ("service_ll", socket.SOCK_SEQPACKET, True),
    "check-stale-socket": ("service_ll", socket.SOCK_SEQPACKET, False),
    "mountfuse3-stale": ("dead", socket.SOCK_SEQPACKET, False),
    "draft-args-refused": ("dead", socket.SOCK_SEQPACKET, False),
    "args-refused": ("dead", socket.SOCK_SEQPACKET, False),
    "args-socket-wrongtype": ("strm", socket.SOCK_STREAM, True),
    "user-socket-0220": ("x", socket.SOCK_SEQPACKET, True),
}


@contextlib.contextmanager
def _socket(name: str, kind: int, listens: bool) -> Iterator[None]:  # noqa: FBT001
    with socket.socket(socket.AF_UNIX, kind) as bound:
        bound.bind(f"{SOCKETS}/{name}")
        os.chmod(f"{SOCKETS}/{name}", 0o220)  # noqa: PTH101
        if listens:
            bound.listen()
        yield


@contextlib.contextmanager
def stage(transcript: Transcript) -> Iterator[None]:
    """Have /run as the recording found it, for as long as the ``with`` lasts."""
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    try:
        for directory in (PLACE, SOCKETS):
            directory.mkdir()
        kernel.mount("tmpfs", os.fspath(PLACE), "tmpfs", 0, "mode=755")
        _files()
        with contextlib.ExitStack() as more:
            _for_one(transcript, more)
            yield
    finally:
        # With everything below it, whatever state that is in; nothing is removed.
        kernel.umount2("/run", kernel.MNT_DETACH)


def _files() -> None:
    _file("img", b"hello from backing file", 65536, 0o644)
    _file("mfile", b"", 0, 0o644)
    _file("secret", b"secret\n", 7, 0o600)
    for name in ("mnt", "mnt2", "bindsrc", "priv", "umnt", "mé sp,ace", "ht"):
        (PLACE / name).mkdir(mode=0o755)
    (PLACE / "bindsrc/marker").touch()
    (PLACE / "priv/m").mkdir()
    (PLACE / "priv").chmod(0o700)
    (PLACE / "lnk").symlink_to("mnt")
    os.chown(PLACE / "umnt", NOBODY, NOBODY)


def _file(name: str, content: bytes, size: int, mode: int) -> None:
    path = PLACE / name
    path.write_bytes(content.ljust(size, b"\0"))
    path.chmod(mode)


def _for_one(transcript: Transcript, more: contextlib.ExitStack) -> None:
    """Add what only this recording needs."""
    name, words = transcript["name"], transcript.get("helper_argv", [])
    if f"{PLACE}/ro.img" in words:
        _read_only_image()
    if "/dev/loop0" in words:
        more.enter_context(_loop_device())
    if name == "ll-already-mounted-twice":
        more.enter_context(_mounted_already())
    if name == "ll-opts-mtab-utab":
        Path(UTAB).parent.mkdir()
        Path(UTAB).touch()
    if name in SOCKETS_THERE:
        more.enter_context(_socket(*SOCKETS_THERE[name]))
    if transcript.get("uid", 0):
        _for_a_user(name)
        more.enter_context(_fuse_device(0o600 if name == "user-dev-fuse-0600" else 0o666))
    if "fuse_conf" in transcript:
        more.enter_context(_fuse_conf(transcript["fuse_conf"]))


def _read_only_image() -> None:
    _file("ro.img", b"read-only", 8192, 0o444)
    kernel.mount(f"{PLACE}/ro.img", f"{PLACE}/ro.img", flags=MS_BIND)
    kernel.mount("none", f"{PLACE}/ro.img", flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


@contextlib.contextmanager
def _loop_device() -> Iterator[None]:
    """Have /dev/loop0 be a loop device of ours: the next free one, seen under that name in this namespace only."""
    _file("blk", b"block image\n", 1 << 20, 0o600)
    command = ["losetup", "--find", "--show", f"{PLACE}/blk"]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    kernel.mount(device, "/dev/loop0", flags=MS_BIND)
    try:
        yield
    finally:
        kernel.umount2("/dev/loop0", kernel.MNT_DETACH)
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def _mounted_already() -> Iterator[None]:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    kernel.mount("service_ll", f"{PLACE}/mnt", "fuse.service_ll", MS_NOSUID_NODEV, data)
    with Program([sys.executable, "-I", "-S", "-c", SERVE, str(device)], pass_fds=[device]):
        os.close(device)
        yield


def _for_a_user(name: str) -> None:
    umnt = PLACE / "umnt"
    if name == "user-dir-not-writable":
        os.chown(umnt, 0, 0)
    elif name == "user-dir-not-readable":
        umnt.chmod(0o300)
    elif name == "user-sticky-not-owner":
        os.chown(umnt, 0, 0)
        umnt.chmod(0o1777)
    elif name == "user-file-own":
        os.chown(PLACE / "mfile", NOBODY, NOBODY)
    elif name == "user-fstype-forbidden":
        kernel.mount("none", f"{PLACE}/ht", "hugetlbfs", 0, f"uid={NOBODY},gid={NOBODY}")
    elif name.startswith(("user-ll", "user-allow")):
        os.chown(PLACE / "img", NOBODY, NOBODY)


@contextlib.contextmanager
def _fuse_device(mode: int) -> Iterator[None]:
    """Have /dev/fuse with permission bits *mode*, whatever this machine's has."""
    os.mknod("/run/fuse", stat.S_IFCHR, os.makedev(10, 229))
    Path("/run/fuse").chmod(mode)
    kernel.mount("/run/fuse", "/dev/fuse", flags=MS_BIND)
    try:
        yield
    finally:
        kernel.umount2("/dev/fuse", kernel.MNT_DETACH)


@contextlib.contextmanager
def _fuse_conf(text: str) -> Iterator[None]:
    path = Path("/etc/fuse.conf")
    if not path.exists():
        pytest.skip("no /etc/fuse.conf to put the recorded one over (apt-get install fuse3)")
    Path("/run/fuse.conf").write_text(text)
    kernel.mount("/run/fuse.conf", os.fspath(path), flags=MS_BIND)
    try:
        yield
    finally:
        kernel.umount2(os.fspath(path), kernel.MNT_DETACH)


def mounts() -> tuple[str, ...]:
    """Return the lines for what is mounted below the stage."""
    lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    return tuple(mount_line(line) for line in lines if line.split(" ")[4].startswith(f"{PLACE}/"))
