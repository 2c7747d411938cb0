"""Attacks on the broker: each is refused by a sentence, nothing is mounted or unmounted, and the broker has nothing more open."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.broker import wire
from fuservice.linux import opentree
from tests.broker.yard import ALICE, BOB, MS_BIND, MS_RDONLY, SAFE, Yard, a_socket, of_another_namespace, refused
from tests.support import kernel

if TYPE_CHECKING:
    from fuservice.linux.fdsockets import FdSeqPacket

pytestmark = [pytest.mark.needs("root", "fuse"), pytest.mark.timeout(120)]

FUSE_DEV_IOC_CLONE = 0x8004_E500
Make = Callable[[Yard], int]


def test_what_is_right_is_mounted(broker: Yard) -> None:
    """Or all of the refusals below would prove nothing."""
    point = broker.make()
    answer = broker.mount(broker.pin(point), pairs=[("max_read", "4096"), ("default_permissions", None)])
    assert answer.error == 0, answer.sentence
    (mount,) = broker.here()
    assert answer.mount_id == mount.mount_id
    assert (mount.point, mount.fstype, mount.source) == (os.fspath(point), "fuse.toy", "src")
    assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} <= set(mount.options.split(","))
    assert mount.super_options == f"ro,user_id={ALICE},group_id={ALICE},default_permissions,max_read=4096"


def test_nobody_gets_suid_or_dev(broker: Yard) -> None:
    for name, uid in (("alice", ALICE), ("root", 0)):
        assert broker.mount(broker.pin(broker.make(name, owner=uid)), uid=uid, flags=0).error == 0
    assert len(broker.here()) == 2
    assert all({"rw", "nosuid", "nodev"} <= set(mount.options.split(",")) for mount in broker.here())


# ---- the first slot: the fuse device ----


def _pipe(broker: Yard) -> int:
    reading, writing = os.pipe()
    broker.keep(reading)
    return broker.keep(writing)


def _used_up(broker: Yard) -> int:
    """Return the device of a mount that is gone."""
    device = broker.device()
    point = broker.make("gone")
    assert broker.mount(broker.pin(point), device).error == 0
    kernel.umount2(os.fspath(point), kernel.MNT_DETACH)
    return device


def _copy(broker: Yard) -> int:
    """Return another descriptor of the connection behind a mount."""
    device, clone, point = broker.device(), broker.device(), broker.make("copied", owner=BOB)
    assert broker.mount(broker.pin(point), device, BOB).error == 0
    fcntl.ioctl(clone, FUSE_DEV_IOC_CLONE, struct.pack("I", device))
    kernel.umount2(os.fspath(point), kernel.MNT_DETACH)
    return clone


DEVICES: dict[str, tuple[Make, int, str]] = {
    "a file": (lambda b: b.pin(b.file("f"), os.O_RDWR), errno.ENODEV, "not the open fuse device"),
    "a directory": (lambda b: b.pin(b.place, os.O_RDONLY), errno.ENODEV, "not the open fuse device"),
    "another device": (lambda b: b.pin(Path(os.devnull), os.O_RDWR), errno.ENODEV, "not the open fuse device"),
    "a socket": (a_socket, errno.ENODEV, "not the open fuse device"),
    "a pipe": (_pipe, errno.ENODEV, "not the open fuse device"),
    "a memory file": (lambda b: b.keep(os.memfd_create("fuse")), errno.ENODEV, "not the open fuse device"),
    "the device as a path": (lambda b: b.device(os.O_PATH), errno.ENODEV, "not the open fuse device"),
    "for reading": (lambda b: b.device(os.O_RDONLY), errno.EBADF, "reading and writing"),
    "for writing": (lambda b: b.device(os.O_WRONLY), errno.EBADF, "reading and writing"),
    "a copy of another's": (_copy, errno.EBUSY, "mounted already, or was"),
    "of a mount that is gone": (_used_up, errno.EBUSY, "mounted already, or was"),
}


@pytest.mark.parametrize("what", DEVICES)
def test_a_fuse_device_that_is_none(broker: Yard, what: str) -> None:
    make, number, words = DEVICES[what]
    refused(broker, broker.mount(broker.pin(broker.make()), make(broker)), number, words)


def test_a_fuse_device_that_is_mounted_already(broker: Yard) -> None:
    device, first, second = broker.device(), broker.make("first"), broker.make("second", owner=BOB)
    assert broker.mount(broker.pin(first), device).error == 0
    answer = broker.mount(broker.pin(second), device, BOB)
    assert (answer.error, answer.sentence) == (errno.EBUSY, "the fuse device is mounted already, or was: open another")
    assert [mount.point for mount in broker.here()] == [os.fspath(first)]


@pytest.mark.needs("userns")
def test_a_fuse_device_of_another_user_namespace(broker: Yard) -> None:
    """The kernel itself refuses it, with its own words."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        code = "import os,socket,sys; s=socket.socket(fileno=0); socket.send_fds(s,[b'x'],[os.open('/dev/fuse',os.O_RDWR)])"
        subprocess.run(["unshare", "-Ur", sys.executable, "-c", code], stdin=theirs.fileno(), check=True, timeout=20)
        _, (device,), _, _ = socket.recv_fds(ours, 1, 1)
    refused(
        broker, broker.mount(broker.pin(broker.make()), broker.keep(device)), errno.EINVAL, "another user namespace?"
    )


# ---- the second slot: the mount point ----


def _symlink(broker: Yard) -> int:
    (broker.place / "link").symlink_to("somewhere")
    os.lchown(broker.place / "link", ALICE, ALICE)
    return broker.pin(broker.place / "link")


def _read_only(broker: Yard) -> int:
    point = broker.make()
    kernel.mount("tmpfs", os.fspath(point), "tmpfs", MS_RDONLY, f"mode=755,uid={ALICE}")
    return broker.pin(point)


def _detached_copy(broker: Yard) -> int:
    return broker.keep(opentree.open_tree(opentree.AT_FDCWD, os.fspath(broker.make()), clone=True).take())


def _deleted(broker: Yard) -> int:
    point = broker.make()
    fd = broker.pin(point)
    point.rmdir()
    return fd


PLACES: dict[str, tuple[Make, int, str]] = {
    "a file of another": (lambda b: b.pin(b.file(owner=BOB)), errno.EACCES, "a file that is not yours"),
    "one opened for reading": (lambda b: b.pin(b.file(owner=BOB), os.O_RDONLY), errno.EACCES, "a file that is not yours"),
    "one that somebody opened as a log": (
        lambda b: b.pin(b.file(owner=0), os.O_WRONLY | os.O_APPEND), errno.EACCES, "a file that is not yours"
    ),
    "a socket": (a_socket, errno.EXDEV, "mount namespace"),
    "a pipe": (_pipe, errno.EXDEV, "mount namespace"),
    "a memory file": (lambda b: b.keep(os.memfd_create("x")), errno.EXDEV, "mount namespace"),
    "a fuse device": (lambda b: b.device(), errno.ENOTDIR, "must be a directory or a regular file"),
    "a symbolic link": (_symlink, errno.ENOTDIR, "must be a directory or a regular file"),
    "another's directory": (lambda b: b.pin(b.make(owner=0)), errno.EACCES, "you may not write to the mount point"),
    "another's private one": (lambda b: b.pin(b.make(owner=BOB, mode=0o700)), errno.EACCES, "you may not write"),
    "another's sticky one": (lambda b: b.pin(b.make(owner=0, mode=0o1777)), errno.EPERM, "sticky directory that is not yours"),
    "on proc": (lambda b: b.pin(Path("/proc/self/task")), errno.EPERM, "filesystem type 0x00009fa0 is forbidden"),
    "a process on proc": (lambda b: b.pin(Path("/proc/self/comm"), os.O_RDWR), errno.EPERM, "type 0x00009fa0 is forbidden"),
    "on sysfs": (lambda b: b.pin(Path("/sys/kernel")), errno.EPERM, "filesystem type 0x62656572 is forbidden"),
    "mounted read-only": (_read_only, errno.EROFS, "mounted read-only"),
    "a copy that is nowhere": (_detached_copy, errno.EXDEV, "not in the broker's mount namespace"),
    "in another mount namespace": (of_another_namespace, errno.EXDEV, "not in the broker's mount namespace"),
    "a deleted directory": (_deleted, errno.ENOENT, "attaching the mount"),
}  # fmt: skip


@pytest.mark.parametrize("what", PLACES)
def test_a_mount_point_that_is_not_the_caller_s(broker: Yard, what: str) -> None:
    make, number, words = PLACES[what]
    place = make(broker)
    with broker.connect() as connection:
        connection.send_with_fds(wire.Mount("src", "toy", SAFE, []).encode(), [broker.device(), place])
        answer = wire.answer(connection.receive(wire.LARGEST))
        if isinstance(answer, wire.Challenge):
            connection.send(wire.PROOF)  # as one does who may not write there
            answer = wire.answer(connection.receive(wire.LARGEST))
    assert isinstance(answer, wire.Answer)
    refused(broker, answer, number, words)


def test_root_may_no_more_than_others(broker: Yard) -> None:
    place = broker.pin(broker.make(owner=BOB, mode=0o1777))
    refused(broker, broker.mount(place, uid=0), errno.EPERM, "sticky directory that is not yours")


def test_a_link_that_leads_elsewhere_between_open_and_send(broker: Yard) -> None:
    """What was opened is what is mounted on, whatever the name means by now."""
    mine, other = broker.make("mine"), broker.make("other", owner=0)
    link = broker.place / "link"
    link.symlink_to(mine)
    place = broker.pin(link, os.O_PATH)
    link.unlink()
    link.symlink_to(other)
    assert broker.mount(place).error == 0
    assert [mount.point for mount in broker.here()] == [os.fspath(mine)]
    link.unlink()
    link.symlink_to(mine)
    place = broker.pin(link, os.O_PATH)  # its mount's root, which lets nobody but Alice look
    refused_ = broker.mount(place)
    assert (refused_.error, "lets nobody but its user look" in refused_.sentence) == (errno.EACCES, True)


# ---- the proof that one may write ----


def challenged(broker: Yard, place: int, device: int) -> tuple[FdSeqPacket, str]:
    """Ask for a mount on another's directory; return the connection, and the name that the broker asks for."""
    connection = broker.connect()
    connection.send_with_fds(wire.Mount("src", "toy", SAFE, []).encode(), [device, place])
    answer = wire.answer(connection.receive(wire.LARGEST))
    assert isinstance(answer, wire.Challenge)
    return connection, answer.word


def show(broker: Yard, connection: FdSeqPacket, path: Path) -> wire.Answer:
    """Show the directory *path*; return the answer."""
    with connection:
        connection.send_with_fds(wire.PROOF, [broker.pin(path)])
        answer = wire.answer(connection.receive(wire.LARGEST))
    assert isinstance(answer, wire.Answer)
    return answer


def own(path: Path, uid: int = ALICE) -> Path:
    """Make the directory *path*, of a user."""
    path.mkdir()
    path.chmod(0o711)
    os.chown(path, uid, uid)
    return path


def test_whoever_can_create_there_may_mount_there(broker: Yard) -> None:
    shared = broker.make("shared", owner=0, mode=0o770)  # the broker itself has no right in it
    connection, word = challenged(broker, broker.pin(shared), broker.device())
    made = own(shared / word)
    answer = show(broker, connection, made)
    assert answer.error == 0, answer.sentence
    assert [mount.point for mount in broker.here()] == [os.fspath(shared)]
    kernel.umount2(os.fspath(shared), kernel.MNT_DETACH)
    made.rmdir()


PROOFS: dict[str, tuple[Callable[[Path, Path, str], Path], str]] = {
    "a directory of one's own that was there": (lambda shared, _other, _word: own(shared / "was there"), "not the directory"),
    "of the right name, elsewhere": (lambda _shared, other, word: own(other / word), "does not lie in the mount point"),
    "of the right name, deeper": (lambda shared, _other, word: own(own(shared / "x") / word), "does not lie in the mount point"),
    "made by another": (lambda shared, _other, word: own(shared / word, 0), "not the directory"),
    "a file": (lambda shared, _other, word: _touch(shared / word), "not the directory"),
    "the mount point itself": (lambda shared, _other, _word: shared, "not the directory"),
    "a mount in it": (lambda shared, _other, word: _mounted(own(shared / word)), "does not lie in the mount point"),
    "that lets nobody in": (lambda shared, _other, word: _closed(own(shared / word)), "cannot be looked at"),
}  # fmt: skip


def _touch(path: Path) -> Path:
    path.touch()
    os.chown(path, ALICE, ALICE)
    return path


def _mounted(path: Path) -> Path:
    kernel.mount("tmpfs", os.fspath(path), "tmpfs", 0, f"mode=755,uid={ALICE}")
    return path


def _closed(path: Path) -> Path:
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("what", PROOFS)
def test_a_proof_that_is_none(broker: Yard, what: str) -> None:
    make, words = PROOFS[what]
    shared, other = broker.make("shared", owner=0), broker.make("other")
    connection, word = challenged(broker, broker.pin(shared), broker.device())
    refused(broker, show(broker, connection, make(shared, other, word)), errno.EACCES, words)
    kernel_mounts = [mount.point for mount in broker.here()]
    for point in kernel_mounts:
        kernel.umount2(point, kernel.MNT_DETACH)
    for path in (shared / "x" / word, other / word):
        if path.exists():
            path.rmdir()


def test_a_proof_seen_through_another_mount(broker: Yard) -> None:
    shared, copy = broker.make("shared", owner=0), broker.make("copy")
    kernel.mount(os.fspath(shared), os.fspath(copy), None, MS_BIND)
    connection, word = challenged(broker, broker.pin(shared), broker.device())
    own(shared / word)
    refused(broker, show(broker, connection, copy / word), errno.EACCES, "does not lie in the mount point")


def test_each_challenge_is_another(broker: Yard) -> None:
    words = set()
    for _ in range(5):
        connection, word = challenged(broker, broker.pin(broker.place), broker.device())
        connection.close()
        words.add(word)
    assert len(words) == 5 and all(len(word) > 32 for word in words)
