"""When and how it is mounted: once, by flags that restrict, where the caller said, and the exit code says whether it is."""

from __future__ import annotations

import errno
import os

import pytest

from tests.peers import wire
from tests.peers.stand import FAILED, GONE, NO_MOUNT, SAYS, Stand
from tests.support import kernel

pytestmark = pytest.mark.needs("root", "fuse")

REFUSED = wire.repl(errno.EINVAL)
#: mount(2)'s flags that do something else than restrict a new mount, or that we do not know.
FLAGS = {
    "MS_REMOUNT": 1 << 5, "MS_MANDLOCK": 1 << 6, "bit 9": 1 << 9, "MS_BIND": 1 << 12, "MS_MOVE": 1 << 13,
    "MS_REC": 1 << 14, "MS_POSIXACL": 1 << 16, "MS_UNBINDABLE": 1 << 17, "MS_PRIVATE": 1 << 18, "MS_SLAVE": 1 << 19,
    "MS_SHARED": 1 << 20, "MS_KERNMOUNT": 1 << 22, "MS_I_VERSION": 1 << 23, "MS_LAZYTIME": 1 << 25,
    "MS_SUBMOUNT": 1 << 26, "MS_NOREMOTELOCK": 1 << 27, "MS_NOSEC": 1 << 28, "MS_BORN": 1 << 29,
    "MS_ACTIVE": 1 << 30, "MS_NOUSER": 1 << 31, "all": 0xFFFF_FFFF, "MS_BIND and MS_REC": 5 << 12,
    "MS_REMOUNT and MS_BIND": 0x1020, "MS_PRIVATE and MS_REC": 1 << 18 | 1 << 14,
}  # fmt: skip


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("and_ours", [0, 6], ids=["alone", "with nosuid and nodev"])
def test_a_flag_that_does_more_than_restrict_ends_the_conversation(stand: Stand, flags: int, and_ours: int) -> None:
    flags |= and_ours
    with stand.conversation() as talk:
        talk.open().agree(doit=None, source=str(stand.image))
        talk.play([(wire.doit(flags), REFUSED)])
        assert talk.wire.ends()
        ended = talk.ended()
    refused = flags & ~0x1208D9F
    sentence = f"mount: Invalid argument (the fuse server asks for mount flags {refused:#x})"
    assert ended == (1, "", f"{SAYS}{sentence}\n")


OPTIONS = {0: "rw,nosuid,nodev,relatime", 1: "ro,nosuid,nodev,relatime", 8: "rw,nosuid,nodev,noexec,relatime",
           256: "rw,nosuid,nodev,relatime,nosymfollow", 1024: "rw,nosuid,nodev,noatime",
           1 << 24: "rw,nosuid,nodev", 1 << 21: "rw,nosuid,nodev,relatime", 1 << 15: "rw,nosuid,nodev,relatime"}  # fmt: skip


@pytest.mark.parametrize("flags", OPTIONS)
def test_nosuid_and_nodev_hold_whatever_the_server_leaves_out(stand: Stand, flags: int) -> None:
    with stand.conversation() as talk:
        talk.open().agree(doit=flags)
        assert talk.goodbye(0) == (0, "", "")
    assert stand.settle().options == OPTIONS[flags]


@pytest.mark.parametrize(("typed", "options"), [
    ("ro", "ro,nosuid,nodev,relatime"), ("noexec", "rw,nosuid,nodev,noexec,relatime"),
    ("nosymfollow", "rw,nosuid,nodev,relatime,nosymfollow"), ("suid", "rw,nodev,relatime"), ("dev", "rw,nosuid,relatime"),
    ("suid,dev,nosuid", "rw,nosuid,relatime"), ("ro,rw", "rw,nosuid,nodev,relatime"),
])  # fmt: skip
def test_a_server_cannot_undo_what_the_caller_typed(stand: Stand, typed: str, options: str) -> None:
    with stand.conversation("-o", typed) as talk:
        talk.open().agree(doit=0)
        assert talk.goodbye(0) == (0, "", "")
    assert stand.settle().options == options


@pytest.mark.parametrize("code", [0, 1, 2, 8, 255, 256, 512, 0xFFFF_FFFF])
def test_a_servers_code_is_not_ours(stand: Stand, code: int) -> None:
    with stand.conversation() as talk:
        assert talk.open().stand is stand
        assert talk.goodbye(code) == (1, "", (FAILED if code else NO_MOUNT) + "\n")


@pytest.mark.parametrize("missing", ["NAME", "MNTP", "both"])
def test_without_a_source_or_a_place_nothing_is_mounted(stand: Stand, missing: str) -> None:
    steps = [(wire.type_(), wire.repl())]
    if missing == "MNTP":
        steps.append((wire.name(), wire.repl()))
    elif missing == "NAME":
        steps.append((wire.mntp(stand.point), wire.repl()))
    with stand.conversation() as talk:
        talk.open().play([*steps, (wire.doit(), REFUSED)])
        ended = talk.goodbye()
    what = "source" if missing == "NAME" else "point"
    assert ended.lines == [f"{SAYS}missing mount {what} parameter", FAILED]


def test_it_is_mounted_once(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open().agree()
        talk.play([(wire.doit(), wire.repl(errno.EBUSY))] * 3)
        ended = talk.goodbye(0)
    assert ended == (0, "", f"{SAYS}mount: Device or resource busy\n" * 3)
    stand.settle()


AFTER = {"TYPE": wire.type_(), "NAME": wire.name(), "OPTS": wire.opts("max_read=4096"), "MTAB": wire.mtab("x-a")}


@pytest.mark.parametrize("packet", AFTER.values(), ids=AFTER)
def test_what_is_mounted_is_not_changed(stand: Stand, packet: bytes) -> None:
    with stand.conversation() as talk:
        talk.open().agree()
        talk.play([(packet, REFUSED)])
        ended = talk.goodbye(0)
    assert ended.code == 0 and len(ended.lines) == 1
    stand.settle()


def test_a_file_is_not_a_block_device_for_the_kernel_to_open(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open().play([
            (wire.type_(1), wire.repl()), (wire.name("/dev/loop0"), wire.repl()), (wire.mntp(stand.point), wire.repl()),
            (wire.doit(), wire.repl(errno.ENOTBLK)),
        ])  # fmt: skip
        assert talk.goodbye().lines == [f"{SAYS}creating filesystem: Block device required", FAILED]


# ---- somebody moves things while the server is asked ----


def test_a_source_that_is_exchanged_for_a_fifo_is_still_the_source(stand: Stand) -> None:
    path, aside = str(stand.image), f"{stand.image}.aside"
    number = os.stat(path).st_ino  # noqa: PTH116
    with stand.conversation() as talk:
        talk.open()
        os.rename(path, aside)  # noqa: PTH104
        os.mkfifo(path)
        talk.wire.send(wire.open_(path, os.O_RDWR))
        answer = talk.wire.receive()
        assert [os.fstat(fd).st_ino for fd in answer.fds] == [number]
        answer.close()
        os.rename(aside, path)  # noqa: PTH104
        assert talk.goodbye().code == 1
    _settle_times(stand)


def test_a_source_that_is_exchanged_for_a_link_is_still_the_source(stand: Stand) -> None:
    path, aside = str(stand.image), f"{stand.image}.aside"
    with stand.conversation() as talk:
        talk.open()
        os.rename(path, aside)  # noqa: PTH104
        stand.image.symlink_to(stand.secret)
        talk.wire.send(wire.open_(path))
        answer = talk.wire.receive()
        assert [os.pread(fd, 6, 0) for fd in answer.fds] == [b"image\n"]
        answer.close()
        os.rename(aside, path)  # noqa: PTH104
        assert talk.goodbye().code == 1
    _settle_times(stand)


def _settle_times(stand: Stand) -> None:
    """Renaming changes the time of the last change; that is not something left."""
    stand.expected = stand.files()


@pytest.mark.parametrize("by", ["a link to elsewhere", "another directory", "nothing", "a mount"])
def test_a_mount_point_that_is_exchanged_is_not_mounted_on(stand: Stand, by: str) -> None:
    point, aside, other = stand.point, stand.place / "aside", stand.place / "other"
    other.mkdir()
    with stand.conversation() as talk:
        talk.open().agree(doit=None)
        if by == "a mount":
            kernel.mount("tmpfs", str(point), "tmpfs")
        else:
            point.rename(aside)
        if by == "a link to elsewhere":
            point.symlink_to(other)
        elif by == "another directory":
            other.rename(point)
        talk.play([(wire.doit(), wire.repl(errno.ESTALE))])
        ended = talk.goodbye()
    assert ended.code == 1 and f"{point}: was exchanged meanwhile" in ended.lines[0] and ended.lines[1:] == [FAILED]
    assert [mount.fstype for mount in stand.mounted()] == (["tmpfs"] if by == "a mount" else [])
    stand.detach()
    if aside.exists():
        _put_back(stand)
    if other.exists():
        other.rmdir()
    _settle_times(stand)


def _put_back(stand: Stand) -> None:
    if stand.point.is_symlink():
        stand.point.unlink()
    elif stand.point.exists():
        stand.point.rmdir()
    (stand.place / "aside").rename(stand.point)


def test_a_server_that_is_gone_before_goodbye_leaves_no_mount(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open().agree()
        assert [mount.fstype for mount in stand.mounted()] == ["fuse.x"]
        talk.hang_up()
        assert talk.ended() == (1, "", GONE + "\n")
    assert stand.mounted() == []


def test_what_lies_on_the_mount_by_then_does_not_keep_it(stand: Stand) -> None:
    """The mount is detached by its descriptor: whatever its path shows is not what goes."""
    with stand.conversation() as talk:
        talk.open().agree()
        kernel.mount("tmpfs", str(stand.place / "sockets"), "tmpfs")
        talk.hang_up()
        assert talk.ended().code == 1
    assert [mount.fstype for mount in stand.mounted()] == ["tmpfs"]
    stand.detach()
