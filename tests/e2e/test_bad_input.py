"""Bad input of every kind: its sentence and its exit code, nothing mounted, no process and no descriptor left.

What the helper refuses it says itself. What the server finds in an image it says in the listener's log, one line each, for
the conversation has no place for words.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Ended, Listener, Mount

pytestmark = pytest.mark.needs("root", "fuse", "e2fsprogs", "installed")

GENERAL = "fuse server failed mount, check dmesg/logs for details."
SIZE = 8 << 20

#: The sizes of the superblock's fields, in order; the rarely used end by words. fs/ext4/ext4.h, ext4_super_block.
SUPERBLOCK = (
    [4] * 13 + [2] * 6 + [4] * 4 + [2] * 2 + [4] + [2] * 2 + [4] * 3 + [16, 16, 64, 4, 1, 1, 2, 16, 4, 4, 4]
    + [4] * 4 + [1, 1, 2] + [4] * 3 + [4] * 17 + [4] * 3 + [2, 2, 4, 2, 2, 8, 4, 1, 1, 1, 1, 8, 4, 4, 8, 4, 4, 4, 4, 8]
    + [4] * 150
)  # fmt: skip
assert sum(SUPERBLOCK) == 1024

Refused = Callable[..., list[str]]


def make_image(path: Path) -> Path:
    """Make a small good image, without checksums: what is damaged has to be found by other means."""
    with path.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^metadata_csum,^uninit_bg", path], check=True)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give a small good image."""
    return make_image(tmp_path / "image")


@pytest.fixture
def refused(listener: Listener, fuservicemount: Mount, mount_point: Path) -> Refused:
    """Give a function that tries to mount, sees that it is refused as it should be, and returns what the helper said."""
    held = listener.descriptors()

    def attempt(source: str | Path, *words: str | Path, at: Path = mount_point, code: int = 1) -> list[str]:
        ended = fuservicemount(source, at, "-t", "ext4", f"--socket-dir={listener.sockets}", *words, timeout=10)
        return judge(ended, code)

    def judge(ended: Ended, code: int) -> list[str]:
        assert ended.code == code and ended.stdout == "", ended
        wait_until(lambda: not listener.servers() and listener.descriptors() == held, "the server is gone")
        assert mounted(mount_point) is None
        assert "Traceback" not in ended.stderr + listener.said()
        lines = ended.stderr.splitlines()
        assert all("fuservicemount: " in line for line in lines)
        return [line.partition("fuservicemount: ")[2] for line in lines]

    return attempt


def logged(listener: Listener) -> list[str]:
    """Return what servers said of images, without their names and ends."""
    lines = listener.said().splitlines()
    assert lines[0].startswith("listening on")
    return [text for line in lines[1:] if not (text := line.partition(": ")[2]).startswith("server ended with")]


def test_no_socket_and_a_stale_socket(fuservicemount: Mount, image: Path, mount_point: Path, tmp_path: Path) -> None:
    def attempt() -> Ended:
        return fuservicemount(image, mount_point, "-t", "ext4", f"--socket-dir={tmp_path}")

    for _ in range(2):
        ended = attempt()
        assert ended.code == 2
        assert ended.stderr.endswith("fuservicemount: no safe filesystem driver for ext4 available.\n")
        if not (tmp_path / "ext4").exists():
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
                stale.bind(str(tmp_path / "ext4"))
                stale.listen()
    assert mounted(mount_point) is None


NOT_SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "No such file or directory"),
    "directory": (Path.mkdir, "is a directory, expected a regular file or a block device"),
    "fifo": (os.mkfifo, "is a FIFO, expected a regular file or a block device"),
    "char": (lambda p: os.mknod(p, 0o20600, os.makedev(1, 5)), "is a character device, expected a regular file or a block device"),
    "procfs": (lambda p: p.symlink_to("/proc/self/maps"), "lies on proc: its files are handles on the kernel, not data"),
    "sysfs": (lambda p: p.symlink_to("/sys/kernel/uevent_seqnum"), "lies on sysfs: its files are handles on the kernel, not data"),
    "loop": (lambda p: p.symlink_to(p), "Too many levels of symbolic links"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_SOURCES)
def test_sources_that_are_none(refused: Refused, tmp_path: Path, kind: str) -> None:
    make, sentence = NOT_SOURCES[kind]
    make(tmp_path / "source")
    assert refused(tmp_path / "source") == [f"{tmp_path}/source: {sentence}", GENERAL]


NOT_MOUNT_POINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "No such file or directory"),
    "symlink": (lambda p: p.symlink_to("."), "is a symbolic link: name the directory that it points to"),
    "fifo": (os.mkfifo, "Mount point must be directory or regular file."),
    "socket": (lambda p: os.mknod(p, 0o140600), "Mount point must be directory or regular file."),
    "file": (Path.touch, "Not a directory"),
}


@pytest.mark.parametrize("kind", NOT_MOUNT_POINTS)
def test_mount_points_that_are_none(refused: Refused, image: Path, tmp_path: Path, kind: str) -> None:
    make, sentence = NOT_MOUNT_POINTS[kind]
    make(tmp_path / "point")
    assert refused(image, at=tmp_path / "point") == [f"{tmp_path}/point: {sentence}", GENERAL]


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1100, 2047, 2048, 4096, 100_000])
def test_an_image_cut_short(refused: Refused, image: Path, listener: Listener, length: int) -> None:
    os.truncate(image, length)
    assert refused(image) == [GENERAL]
    (said,) = logged(listener)
    if length < 2048:
        assert said == f"the image has {length} bytes: too short for an ext2, ext3 or ext4 filesystem"
    else:
        assert re.fullmatch(
            rf"the root directory cannot be read: bytes \d+ to \d+ are beyond the image's {length}", said
        )


@pytest.mark.parametrize("length", [SIZE // 2, SIZE - 1])
def test_an_image_cut_behind_its_root(
    mount_ext4: Callable[..., Path], image: Path, listener: Listener, length: int
) -> None:
    """What there is is served."""
    os.truncate(image, length)
    assert os.listdir(mount_ext4(image)) == ["lost+found"]
    (said,) = logged(listener)
    assert said == (
        f"image is cut short: the filesystem says {SIZE} bytes, the image has {length}; what lies behind them is EIO"
    )


@pytest.mark.parametrize("content", ["zeros", "ones", "random"])
def test_an_image_of_something_else(refused: Refused, tmp_path: Path, listener: Listener, content: str) -> None:
    filled = {"zeros": bytes(SIZE), "ones": b"\xff" * SIZE, "random": random.Random(1).randbytes(SIZE)}[content]
    (tmp_path / "image").write_bytes(filled)
    assert refused(tmp_path / "image") == [GENERAL]
    (said,) = logged(listener)
    assert said.startswith("no ext2, ext3 or ext4 filesystem: the magic number is 0x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "nonsense"], "fuse: unknown option(s): `-o nonsense'"),
        (["--nonsense"], "fuse: unknown option(s): `--nonsense'"),
        (["x" * 100_000, "y" * 100_000, "z" * 100_000], "fuse: invalid argument `xxx"),
    ],
    ids=["option", "long option", "300 KiB in three words"],
)
def test_words_that_the_server_does_not_know(
    refused: Refused, image: Path, mount_point: Path, listener: Listener, words: list[str], said: str
) -> None:
    last = [] if words[0].startswith("-") else [mount_point]
    assert refused(image, *words, *last) == [GENERAL]
    assert logged(listener)[0].startswith(said)
    assert len(logged(listener)[0]) < 400


def test_300_kib_of_argv(refused: Refused, image: Path) -> None:
    words = [str(number) for number in range(100_000, 150_000)]
    said = refused(image, *words)
    assert said == [f"{len(words) + 3} arguments, at most 1024 can be passed to a service"]


def fields() -> Iterator[tuple[int, int]]:
    """Yield offset and size of each field of the superblock."""
    offset = 1024
    for size in SUPERBLOCK:
        yield offset, size
        offset += size


def look_around(top: Path) -> None:
    """Read everything that can be read; errors are welcome, a hang is not."""
    for place, _, names in os.walk(top):
        for name in names:
            try:
                with open(os.path.join(place, name), "rb") as file:  # noqa: PTH118, PTH123
                    file.read(1 << 20)
            except OSError:
                continue


@pytest.mark.parametrize("activated_by", ["listen"], indirect=True)  # by a unit, 242 more starts would show nothing new
@pytest.mark.timeout(300)
def test_each_field_of_the_superblock_at_its_maximum(
    listener: Listener, fuservicemount: Mount, mount_point: Path, image: Path
) -> None:
    good = image.read_bytes()[:4096]
    outcomes = {"refused": 0, "mounted": 0}
    for offset, size in fields():
        with image.open("r+b") as file:
            file.write(good[:offset] + b"\xff" * size + good[offset + size :])
        before = len(logged(listener))
        ended = fuservicemount(
            image, mount_point, "-t", "ext4", "-o", "ro", f"--socket-dir={listener.sockets}", timeout=10
        )
        what = f"field at {offset - 1024:#x}: {ended} {logged(listener)[before:]}"
        if ended.code == 0:
            look_around(mount_point)
            detach_all(mount_point)
        else:
            assert ended.code == 1 and ended.stderr.endswith(f"{GENERAL}\n"), what
            assert logged(listener)[before:], what
        wait_until(lambda: not listener.servers(), what)
        outcomes["mounted" if ended.code == 0 else "refused"] += 1
    print(f"superblock: {len(SUPERBLOCK)} fields, {outcomes}")
    assert "Traceback" not in listener.said()
    assert outcomes["refused"] >= 10


def test_a_corrupt_file_in_a_good_image(
    mount_ext4: Callable[..., Path], image: Path, listener: Listener, tmp_path: Path
) -> None:
    (tmp_path / "content").write_bytes(b"content" * 10_000)
    requests = [f"write {tmp_path}/content {name}" for name in ("good", "bad", "worse")]
    requests += ["sif bad block[0] 0xdeadbeef", "sif worse block[5] 0x7fffffff"]
    subprocess.run(
        ["debugfs", "-w", "-f", "-", image], input="\n".join(requests).encode(), check=True, capture_output=True
    )
    top = mount_ext4(image)
    for _ in range(2):
        for name in ("bad", "worse"):
            with pytest.raises(OSError, match="Input/output error"):
                (top / name).read_bytes()
        assert (top / "good").read_bytes() == b"content" * 10_000
    assert sorted(os.listdir(top)) == ["bad", "good", "lost+found", "worse"]
    assert "Traceback" not in listener.said()


@pytest.mark.parametrize("activated_by", ["listen"], indirect=True)  # of units: tests/systemd/test_helper_words.py
def test_the_helper_says_where_to_read_on(listener: Listener, image: Path, mount_point: Path) -> None:
    os.truncate(image, 4096)
    words: list[str | Path] = [PROGRAMS / "fuservicemount", image, mount_point, "-t", "ext4"]
    done = subprocess.run([*words, f"--socket-dir={listener.sockets}"], capture_output=True, text=True, check=False)
    see = f"see the log of `fuservice listen' (process {listener.program.pid})"
    assert done.stderr.endswith(f"fuservicemount: {GENERAL.rstrip('.')}, {see}\n")
