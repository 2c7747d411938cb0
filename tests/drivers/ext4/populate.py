"""A tree with everything that a reader of ext2, ext3 and ext4 can get wrong, written through the kernel's own mount.

Whatever a filesystem does not have (xattrs too large for it, a file too large, an owner too high) is left out there: what
counts is that both readers of the image agree on what was stored.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

NAMES = 2200
UNSUPPORTED = {
    errno.EFBIG,
    errno.EOPNOTSUPP,
    errno.ENOSPC,
    errno.E2BIG,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EOVERFLOW,
    errno.EMLINK,
}


@contextlib.contextmanager
def if_it_can() -> Iterator[None]:
    """Bear with what the filesystem does not have."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def populate(top: Path, *, names: int = NAMES) -> None:
    """Fill *top*, a mounted filesystem with at least 40 MiB and *names* + 1000 inodes free. Needs root."""
    chance = random.Random(names)
    before = os.umask(0)
    try:
        odd_names(made(top, "odd_names"), chance, names)
        for part in (sizes, sparse, fragmented, links, nodes, owners_and_times, attributes, deep, churned):
            part(made(top, part.__name__), chance)
    finally:
        os.umask(before)


def made(top: Path, name: str) -> Path:
    (top / name).mkdir()
    return top / name


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def odd_names(top: Path, chance: random.Random, count: int) -> None:
    here = os.fsencode(top)
    fixed = [
        b"-", b"--help", b"-rf", b" ", b"  leading", b"trailing ", b"new\nline", b"\n", b"tab\t", b"\\", b"\\n", b"a'b\"c", b"*", b"?[x]",
        b"~", b"$HOME", b"%s%n", b"\x01\x02", b"\x7f", b"\x1b[31mred", b"...", b".hidden", b"\xff\xfe", b"\xc3\x28", b"\xe2\x80\xae",
        "grün".encode(), "日本語".encode(), "e\u0301".encode(), "é".encode(), b"n" * 255, "ü".encode() * 127, b"\xff" * 255, b"CON", b"a:b",
    ]  # fmt: skip
    names = set(fixed)
    while len(names) < count:
        length = chance.choice((1, 2, 3, 8, 8, 12, 20, 40, 100, 255))
        name = bytes(chance.choice((chance.randrange(1, 256), chance.randrange(97, 123))) for _ in range(length))
        if b"/" not in name and name not in (b".", b".."):
            names.add(name)
    for name in sorted(names, key=lambda _: chance.random()):
        os.close(os.open(here + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o640))


def sizes(top: Path, chance: random.Random) -> None:
    for size in (
        0,
        1,
        59,
        60,
        61,
        100,
        132,
        159,
        160,
        161,
        200,
        400,
        1023,
        1024,
        1025,
        4095,
        4096,
        4097,
        12 * 1024 + 1,
        50_000,
        300_001,
        5_000_000,
    ):
        write(top / f"of-{size}", chance.randbytes(size))
    for size in (10, 60, 150):
        with (top / f"longer-than-written-{size}").open("wb") as file:
            file.write(b"x" * size)
            file.truncate(size * 2)


def sparse(top: Path, chance: random.Random) -> None:
    for name, places in {
        "empty-1M": [(1 << 20, b"")],
        "far": [(0, b"begin"), ((4 << 30) + 5, b"middle"), ((6 << 30) + 123_456, b"end")],
        "two-GiB": [((1 << 31) - 10, b"over!")],
        "holes": [(at * 10_000, chance.randbytes(3000)) for at in range(40)],
        "triple": [(200 << 20, b"x" * 5000), (20 << 20, b"y" * 5000)],
    }.items():
        with if_it_can(), (top / name).open("wb") as file:
            for at, data in places:
                os.pwrite(file.fileno(), data, at)
                file.truncate(max(os.fstat(file.fileno()).st_size, at + len(data)))
    for name, size in (("unwritten", 3_000_000), ("unwritten-written", 3_000_000)):
        with if_it_can(), (top / name).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            if "-" in name:
                for at in range(100_000, size - 5000, 500_000):
                    os.pwrite(file.fileno(), chance.randbytes(5000), at)


def fragmented(top: Path, chance: random.Random) -> None:
    """One file whose data come in 1,200 pieces, written in a wild order."""
    block = os.statvfs(top).f_bsize
    places = list(range(0, 2400, 2))
    chance.shuffle(places)
    with (top / "pieces").open("wb") as file:
        for at in places:
            os.pwrite(file.fileno(), b"%08d" % at * 8, at * block)


def links(top: Path, chance: random.Random) -> None:
    for length in (1, 2, 58, 59, 60, 61, 100, 150, 255, 1000, 1023, 2000, 4000):
        with if_it_can():
            (top / f"symlink-{length}").symlink_to("/".join(["t" * 50] * 100)[:length])
    (top / "dangling").symlink_to("no/such/thing")
    (top / "itself").symlink_to("itself")
    (top / "odd").symlink_to(os.fsdecode(b"\xff\n\x01 odd"))
    write(top / "linked", b"one inode, many names\n")
    (top / "elsewhere").mkdir()
    for number in range(60):
        (top / ("elsewhere" if number % 2 else ".") / f"hard-{number}").hardlink_to(top / "linked")
    (top / "hard-symlink").hardlink_to(top / "symlink-59")
    for number in range(70):
        (top / "elsewhere" / f"sub-{number}").mkdir()


def nodes(top: Path, chance: random.Random) -> None:
    os.mkfifo(top / "fifo", 0o600)
    with contextlib.chdir(top), socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    for kind, letter in ((stat.S_IFCHR, "c"), (stat.S_IFBLK, "b")):
        for major, minor in ((1, 3), (0, 5), (255, 255), (256, 0), (8, 256), (4095, 1_048_575), (259, 70_000)):
            os.mknod(top / f"{letter}-{major}-{minor}", kind | 0o660, os.makedev(major, minor))


def owners_and_times(top: Path, chance: random.Random) -> None:
    for number, owner in enumerate((0, 1, 65_534, 65_535, 65_536, 1 << 31, (1 << 32) - 2)):
        path = top / f"owner-{number}"
        write(path, b"")
        os.chown(path, owner, (1 << 32) - 2 - owner)
        path.chmod(0o7000 | number * 0o111)
    second = 10**9
    for number, time in enumerate((
        -1, 0, 1, -2 * second - 1, -(1 << 31) * second, (1 << 31) * second - 1, (1 << 31) * second, 1 << 62, 4_000_000_000 * second + 999_999_999,
        6_442_450_943 * second, 1_700_000_000_123_456_789, ((1 << 34) - (1 << 31) - 1) * second + 999_999_999, 15_032_385_535 * second,
    )):  # fmt: skip
        path = top / f"time-{number}"
        path.mkdir() if number % 3 == 0 else write(path, b"x")
        os.utime(path, ns=(time, time + 1 if time < 1 << 62 else time))
    os.utime(top, ns=(-123_456_789, (1 << 33) * second + 1))


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return a POSIX ACL as an attribute's value: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def attributes(top: Path, chance: random.Random) -> None:
    nobody = 0xFFFFFFFF
    access = acl(
        (1, 6, nobody), (2, 7, 70_000), (2, 4, 123), (4, 5, nobody), (8, 1, 99), (0x10, 7, nobody), (0x20, 0, nobody)
    )
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    cases: dict[str, dict[str, bytes]] = {
        "one": {"user.a": b"1"},
        "empty-value": {"user.empty": b"", "trusted.empty": b""},
        "many": {f"user.number-{n}": b"%d" % n * n for n in range(20)},
        "long-name": {"user." + "n" * 250: b"long"},
        "block": {"user.block": b"B" * 600, "trusted.t": b"T" * 90, "security.s": b"S" * 70},
        "kinds": {"user.u": b"u", "trusted.t": b"t", "security.s": b"s", "security.capability": capability},
        "acl": {"system.posix_acl_access": access, "user.beside": b"it"},
        "binary": {"user.\xff": bytes(range(256))},
        "large": {"user.large": chance.randbytes(3500)},
        "huge": {"user.huge": chance.randbytes(30_000), "user.small": b"s", "user.huge2": chance.randbytes(65_536)},
    }
    for name, values in cases.items():
        for path in (top / f"{name}-file", top / f"{name}-dir"):
            write(path, b"data") if path.name.endswith("file") else path.mkdir()
            set_attributes(path, values)
    with if_it_can():
        os.setxattr(top / "acl-dir", "system.posix_acl_default", access)
        write(top / "acl-dir" / "inherits", b"")
    (top / "link").symlink_to("x" * 20)
    set_attributes(top / "link", {"trusted.on-a-link": b"l" * 40, "security.too": b"2"})
    for name in ("same-1", "same-2", "same-3"):  # the kernel lets them share a block
        write(top / name, b"")
        set_attributes(top / name, {"user.same": b"same" * 150})
    os.mkfifo(top / "pipe")
    set_attributes(top / "pipe", {"trusted.on-a-pipe": b"p" * 300})


def set_attributes(path: Path, values: dict[str, bytes]) -> None:
    for name, value in values.items():
        with if_it_can():
            os.setxattr(path, name, value, follow_symlinks=False)


def deep(top: Path, chance: random.Random) -> None:
    at = top
    for level in range(60):
        at /= f"level-{level}" + "d" * (level % 7) * 5
        at.mkdir()
        if level % 10 == 0:
            write(at / "file", b"%d" % level)
    write(at / "bottom", b"here")


def churned(top: Path, chance: random.Random) -> None:
    """Directories that were large and are not any more, and some that grew one name at a time."""
    for name, count, kept in (
        ("shrunk", 400, 5),
        ("emptied", 300, 0),
        ("grown", 45, 45),
        ("few", 3, 3),
        ("none", 0, 0),
    ):
        directory = top / name
        directory.mkdir()
        for number in range(count):
            write(directory / f"{name}-{number:04}", b"")
        for number in range(kept, count):
            (directory / f"{name}-{number:04}").unlink()
