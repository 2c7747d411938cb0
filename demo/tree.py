"""A real tree with everything that an ext4 image can hold, and the image that mkfs.ext4 makes of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCES = (Path("/etc"), Path("/usr/share/doc"), Path("/usr/lib/python3.11"), Path("/usr/share"))
COPIES = 600
LARGEST_COPY = 1 << 20
OWNERS = (0, 33, 1000, 65534, 100_000, (1 << 31) + 5)
#: Before the epoch, whole, with nanoseconds, past 2038, and past 2106, where 32 bits end whatever their sign.
TIMES_NS = (-86_400 * 10**9, 10**18, 1_600_000_000_123_456_789, 2_500_000_000 * 10**9, 5_000_000_000 * 10**9)
ODD_NAMES = (
    b"with blanks", b"new\nline", b"\xff\xfe not utf-8", "umlaut-\u00e4\u00f6\u00fc-\u6f22".encode(), b"-rf", b"*", b"back\\slash",
    b"'quote\"s", b"\x01\x1b[31mred", b"a" * 255, b".hidden", b"...",
)  # fmt: skip


def plant(top: Path, *, privileged: bool = False) -> None:
    """Fill the directory *top*: some hundred entries of this machine's own tree, then what such trees lack.

    With *privileged* also set-id files and device nodes, which a mount shows to those who typed suid and dev.
    """
    _copy_real_files(top / "real")
    plain = (_odd_names, _links, _deep, _crowd, _special, _holes, _attributes, _modes_and_times)
    for make in (*plain, _privileged) if privileged else plain:
        directory = top / make.__name__.lstrip("_")
        directory.mkdir()
        make(directory)


def _real_files() -> Iterator[Path]:
    for source in SOURCES:
        for path in sorted(source.rglob("*")):
            if path.is_symlink() or (path.is_file() and _is_ordinary(path.stat())):
                yield path


def _is_ordinary(status: os.stat_result) -> bool:
    """Neither large nor secret: a demo copies what everybody may read."""
    return status.st_size <= LARGEST_COPY and bool(status.st_mode & 0o004)


def _copy_real_files(where: Path) -> None:
    """Copy the first readable files of this machine, with their modes and times, and give them different owners."""
    where.mkdir()
    for number, (path, _) in enumerate(zip(_real_files(), range(COPIES), strict=False)):
        copy = where / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # two sources overlap, or a file went away
            shutil.copy2(path, copy, follow_symlinks=False)
            os.chown(copy, OWNERS[number % len(OWNERS)], OWNERS[number // 2 % len(OWNERS)], follow_symlinks=False)


def _odd_names(where: Path) -> None:
    for name in ODD_NAMES:
        (where / os.fsdecode(name)).write_bytes(name * 3)


def _links(where: Path) -> None:
    (where / "file").write_text("one file, three names\n")
    for name in ("second", "third"):
        os.link(where / "file", where / name)
    (where / "short").symlink_to("file")
    (where / "dangling").symlink_to("/nowhere/at/all")
    for length in (59, 60, 61, 1000):  # 59 bytes fit into an inode
        (where / f"of-{length}").symlink_to("x" * length)


def _deep(where: Path) -> None:
    for level in range(60):
        where /= f"level-{level}"
        where.mkdir()
    (where / "bottom").write_text("as deep as it goes\n")


def _crowd(where: Path) -> None:
    for number in range(400):
        (where / f"a file with a rather long name, so that the directory takes several blocks: {number:04}").touch()


def _special(where: Path) -> None:
    os.mkfifo(where / "fifo")
    os.mknod(where / "socket", 0o140600)


def _privileged(where: Path) -> None:
    os.mknod(where / "char", 0o20666, os.makedev(1, 3))
    os.mknod(where / "block", 0o60660, os.makedev(259, 70_000))
    _modes(where, 0o2755, 0o4755, 0o6711, 0o7777)


def _holes(where: Path) -> None:
    (where / "empty").touch()
    with (where / "sparse").open("wb") as file:
        for offset in (0, 5_000_000, 20_000_001):
            file.seek(offset)
            file.write(b"data between holes" * 100)
        file.truncate(64 << 20)
    (where / "ragged").write_bytes(os.urandom(1_234_567))


def _attributes(where: Path) -> None:
    """trusted.* only: not every kernel's tmpfs takes user.*, which make_image() adds by debugfs."""
    (where / "many").touch()
    for number in range(8):
        os.setxattr(where / "many", f"trusted.number{number}", b"\0binary\xff" * number)
    (where / "large").touch()
    os.setxattr(where / "large", "trusted.large", os.urandom(900))
    os.setxattr(where, "trusted.directory", b"directories too")


def _modes_and_times(where: Path) -> None:
    _modes(where, 0o000, 0o400, 0o755, 0o1777)
    for time in TIMES_NS:
        (where / f"time-{time}").touch()
        os.utime(where / f"time-{time}", ns=(time, time))


def _modes(where: Path, *modes: int) -> None:
    for mode in modes:
        path = where / f"mode-{mode:04o}"
        path.touch()
        os.chown(path, 1000, 1000)
        path.chmod(mode)


def make_image(tree: Path, image: Path, size: str = "512M") -> str:
    """Make *image*, an ext4 filesystem of *size* that holds *tree*; return the command. mkfs.ext4(8), debugfs(8)."""
    mkfs = ["mkfs.ext4", "-q", "-F", "-L", "demo", "-d", os.fspath(tree), os.fspath(image), size]
    subprocess.run(mkfs, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    requests = [f"set_inode_field modes_and_times/time-{TIMES_NS[2]} mtime_extra {123_456_789 << 2}"]
    requests += [f"ea_set attributes/{name} user.{name} a-value-of-{name}" for name in ("many", "large")]
    done = subprocess.run(
        ["debugfs", "-w", "-f", "-", image], input="\n".join(requests), check=True, capture_output=True, text=True
    )
    if failures := [line for line in done.stderr.splitlines()[1:] if line.strip()]:
        raise RuntimeError(f"debugfs: {failures}")
    return " ".join(mkfs)
