"""What a server may have opened: what the caller typed as source, pinned before the server was there, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.peers import wire
from tests.peers.stand import FAILED, NO_MOUNT, SAYS, Stand

pytestmark = pytest.mark.needs("root", "fuse")

NOT_GRANTED = "Permission denied (the fuse server asks for a file that was not granted)"
NEVER = {
    "O_CREAT": os.O_CREAT, "O_TRUNC": os.O_TRUNC, "O_APPEND": os.O_APPEND, "O_PATH": os.O_PATH,
    "O_DIRECTORY": os.O_DIRECTORY, "O_TMPFILE": os.O_TMPFILE, "O_DIRECT": os.O_DIRECT, "O_SYNC": os.O_SYNC,
    "O_ASYNC": os.O_ASYNC, "O_NOATIME": os.O_NOATIME, "an unknown flag": 1 << 30,
}  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/", "image", "{}/./image", "{}//image", "{}/mnt/../image", "{}/image/", "{}/mnt", "{}/secret", "x",
     "/proc/self/mem", "/proc/self/environ", "/proc/self/fd/3", "/dev/mem", "/dev/fuse", "argv", "fusedev"],
)  # fmt: skip
def test_a_path_that_is_not_the_source_to_the_byte_is_never_opened(stand: Stand, path: str) -> None:
    path = path.format(stand.place)
    with stand.conversation() as talk:
        talk.open().play([(wire.open_(path), wire.file(errno.EACCES, path))])
        assert talk.goodbye() == (1, "", f"{SAYS}{path}: {NOT_GRANTED}\n{FAILED}\n")


@pytest.mark.parametrize("flags", NEVER.values(), ids=NEVER)
@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_RDWR], ids=["r", "rw"])
def test_the_source_is_never_opened_with_flags_that_do_more_than_read_and_write(
    stand: Stand, flags: int, access: int
) -> None:
    with stand.conversation() as talk:
        talk.open().play([(wire.open_(str(stand.image), flags | access), wire.file(errno.EACCES, str(stand.image)))])
        ended = talk.goodbye()
    assert (ended.code, ended.lines[1:]) == (1, [FAILED])
    assert "are never granted" in ended.lines[0]


@pytest.mark.parametrize("access", [os.O_WRONLY, os.O_ACCMODE], ids=["O_WRONLY", "access mode 3"])
def test_the_source_is_never_opened_for_writing_only(stand: Stand, access: int) -> None:
    with stand.conversation() as talk:
        talk.open().play([(wire.open_(str(stand.image), access), wire.file(errno.EACCES, str(stand.image)))])
        assert talk.goodbye().lines == [f"{SAYS}{stand.image}: opening for writing only is never granted", FAILED]


@pytest.mark.parametrize("words", [("-o", "ro"), ("-oro",), ("-r",), ("-o", "rw,ro"), ("-o", "noatime,ro,suid")])
def test_a_source_that_was_to_be_read_is_not_written(stand: Stand, words: tuple[str, ...]) -> None:
    path = str(stand.image)
    with stand.conversation(*words) as talk:
        talk.open().play([(wire.open_(path, os.O_RDWR), wire.file(errno.EROFS, path))])
        answer = wire.file(0, path)
        talk.play([(wire.open_(path, os.O_RDONLY), answer)])
        ended = talk.goodbye()
    assert ended.lines == [f"{SAYS}{path}: Read-only file system (it was granted for reading)", FAILED]


def test_a_source_is_given_four_times_each_a_description_of_its_own(stand: Stand) -> None:
    path = str(stand.image)
    with stand.conversation() as talk:
        talk.open()
        fds = []
        for _ in range(4):
            talk.wire.send(wire.open_(path, os.O_RDWR))
            fds += talk.wire.receive().fds
        os.lseek(fds[0], 5, os.SEEK_SET)
        assert [os.lseek(fd, 0, os.SEEK_CUR) for fd in fds] == [5, 0, 0, 0]
        for fd in fds:
            os.close(fd)
        talk.play([(wire.open_(path), wire.file(errno.EMFILE, path))])
        assert talk.goodbye().lines == [
            f"{SAYS}{path}: was opened 4 times, which is the most a service gets", FAILED
        ]  # fmt: skip


class Packet(NamedTuple):
    """A malformed OPEN or BDEV: the packet for the granted path, the answer, the sentence."""

    name: str
    build: bytes
    error: int
    path: bytes
    says: str


MALFORMED = [
    Packet("no path", b"OPEN" + bytes(16) + b"\0", errno.EINVAL, b"?", "open command too small"),
    Packet("no header", b"OPEN", errno.EINVAL, b"?", "open command too small"),
    Packet("no NUL", b"OPEN" + bytes(16) + b"IMAGE", errno.EINVAL, b"?", "open command must be null terminated"),
    Packet("a NUL inside", b"OPEN" + bytes(16) + b"IMAGE\0/etc/shadow\0", errno.EINVAL, b"?", "has a NUL at byte"),
    Packet("unknown request", b"OPEN" + bytes(8) + b"\0\0\0\2" + bytes(4) + b"IMAGE\0", errno.EINVAL, b"IMAGE",
           "open flags 0x2 not recognized"),
    Packet("a file as a device", b"BDEV" + bytes(16) + b"IMAGE\0", errno.ENOTBLK, b"IMAGE", "Block device required"),
]  # fmt: skip


@pytest.mark.parametrize("packet", MALFORMED, ids=lambda packet: packet.name)
def test_a_malformed_request_for_a_file_is_refused_with_its_sentence(stand: Stand, packet: Packet) -> None:
    image = os.fsencode(stand.image)
    with stand.conversation() as talk:
        answer = wire.file(packet.error, packet.path.replace(b"IMAGE", image))
        talk.open().play([(packet.build.replace(b"IMAGE", image), answer)])
        ended = talk.goodbye()
    assert ended.code == 1 and len(ended.lines) == 2
    assert packet.says in ended.lines[0] and ended.lines[1] == FAILED


def test_a_quiet_request_is_refused_without_a_word(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open().play([(wire.open_("/etc/shadow", request=1), wire.file(errno.EACCES, "/etc/shadow"))])
        assert talk.goodbye().lines == [FAILED]


def test_nothing_is_opened_once_it_is_mounted(stand: Stand) -> None:
    path = str(stand.image)
    with stand.conversation() as talk:
        talk.open().agree()
        talk.play([(wire.open_(path), wire.file(errno.EINVAL, path))])
        ended = talk.goodbye(0)
        assert ended.code == 0 and len(ended.lines) == 1 and "open command is out of order" in ended.lines[0]
        stand.settle()


SOURCES = {
    "missing": (errno.ENOENT, "No such file or directory"),
    "directory": (errno.EISDIR, "is a directory, expected a regular file or a block device"),
    "fifo": (errno.EACCES, "is a FIFO, expected a regular file or a block device"),
    "socket": (errno.EACCES, "is a socket, expected a regular file or a block device"),
    "/dev/null": (errno.EACCES, "is a character device, expected a regular file or a block device"),
    "/proc/self/mem": (errno.EACCES, "lies on proc: its files are handles on the kernel, not data"),
    "/proc/1/environ": (errno.EACCES, "lies on proc: its files are handles on the kernel, not data"),
    "/proc/version": (errno.EACCES, "lies on proc: its files are handles on the kernel, not data"),
    "/sys/kernel/profiling": (errno.EACCES, "lies on sysfs: its files are handles on the kernel, not data"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_no_image_is_neither_opened_nor_waited_for(stand: Stand, source: str) -> None:
    number, says = SOURCES[source]
    path = source if source.startswith("/") else f"{stand.place}/{source}"
    _make(Path(path))
    with stand.conversation(source=path) as talk:
        talk.open().play([(wire.open_(path, os.O_RDWR), wire.file(number, path))])
        assert talk.goodbye() == (1, "", f"{SAYS}{path}: {says}\n{FAILED}\n")
    if source in ("directory", "fifo", "socket"):
        (os.rmdir if source == "directory" else os.unlink)(path)


def _make(path: Path) -> None:
    match path.name:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, 0o140600)


def test_a_goodbye_without_a_mount_is_a_failure(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open().play([(wire.open_(str(stand.image)), wire.file(0, str(stand.image)))])
        assert talk.goodbye(0) == (1, "", NO_MOUNT + "\n")
