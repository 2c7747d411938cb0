"""Attacks by words, flags, packets, and requests to unmount what is another's: each is refused by a sentence."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from fuservice.broker import wire
from tests.broker.yard import ALICE, BOB, CAROL, SAFE, Yard, a_socket, of_another_namespace, refused
from tests.support import kernel
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.needs("root", "fuse"), pytest.mark.timeout(120)]


# ---- words and flags ----

OPTIONS = [
    ("context", "system_u:object_r:etc_t:s0"), ("fscontext", "x"), ("defcontext", "x"), ("rootcontext", "x"), ("fd", "3"),
    ("user_id", "0"), ("group_id", "0"), ("rootmode", "40000"), ("source", "x"), ("subtype", "x"), ("blksize", "512"),
    ("allow_other", ""), ("allow_other", "1"), ("allow_root", None), ("default_permissions", "x"), ("max_read", None),
    ("max_read", ""), ("max_read", "0"), ("max_read", "010"), ("max_read", "4096,allow_other"), ("max_read", "4294967296"),
    ("max_read", "-1"), ("max_read", "٣"), ("default_permissions,allow_other", None), ("ro", None), ("suid", None), ("dax", None),
    ("", None),
]  # fmt: skip


@pytest.mark.parametrize("pair", OPTIONS, ids=lambda pair: f"{pair[0]}={pair[1]}")
def test_an_option_that_is_not_for_callers(broker: Yard, pair: tuple[str, str | None]) -> None:
    refused(
        broker,
        broker.mount(broker.pin(broker.make()), pairs=[pair]),
        errno.EINVAL,
        "is not one that the broker passes on",
    )


def test_an_option_twice(broker: Yard) -> None:
    pairs = [("max_read", "4096"), ("max_read", "1")]
    refused(broker, broker.mount(broker.pin(broker.make()), pairs=pairs), errno.EINVAL, "max_read twice")


def test_allow_other_is_the_administrator_s_to_allow(broker: Yard) -> None:
    point = broker.make()
    refused(broker, broker.mount(broker.pin(point), pairs=[("allow_other", None)]), errno.EPERM, "user_allow_other")
    (broker.etc / "fuse.conf").write_text("user_allow_other\n")
    assert broker.mount(broker.pin(point), pairs=[("allow_other", None)]).error == 0
    assert "allow_other" in broker.here()[0].super_options


FLAGS = {
    "MS_REMOUNT": 32, "MS_MANDLOCK": 64, "MS_BIND": 4096, "MS_MOVE": 8192, "MS_REC": 16384, "MS_UNBINDABLE": 1 << 17,
    "MS_PRIVATE": 1 << 18, "MS_SLAVE": 1 << 19, "MS_SHARED": 1 << 20, "MS_KERNMOUNT": 1 << 22, "MS_I_VERSION": 1 << 23,
    "MS_LAZYTIME": 1 << 25, "all": 0xFFFF_FFFF,
}  # fmt: skip


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_does_more_than_restrict(broker: Yard, name: str) -> None:
    refused(broker, broker.mount(broker.pin(broker.make()), flags=SAFE | FLAGS[name]), errno.EINVAL, "not for a broker")


@pytest.mark.parametrize("subtype", ["a/b", "a b", "a,b", "a.b\\c", "é", "x" * 65])
def test_a_subtype_that_is_none(broker: Yard, subtype: str) -> None:
    refused(broker, broker.mount(broker.pin(broker.make()), subtype=subtype), errno.EINVAL, "subtype")


# ---- the message ----

GOOD = wire.Mount("src", "toy", SAFE, []).encode()
PACKETS: dict[str, tuple[bytes, int, int, str]] = {
    "cut short": (GOOD[:-1], 2, errno.EPROTO, "malformed"),
    "too large": (GOOD + bytes(60_000), 2, errno.EMSGSIZE, "a packet of over 4096 bytes"),
    "another version": (GOOD[:5] + b"\2" + GOOD[6:], 2, errno.EPROTO, "speaks version 1, the request is of version 2"),
    "another protocol": (b"SAFT" + bytes(8), 2, errno.EPROTO, "begins with MONT or UMNT"),
    "one byte": (b"M", 2, errno.EPROTO, "begins with MONT or UMNT"),
    "no bytes": (b"", 2, errno.EPROTO, "begins with MONT or UMNT"),
    "a control character": (wire.Mount("a\x1b[2J", "toy", SAFE, []).encode(), 2, errno.EPROTO, "control characters"),
    "one descriptor": (GOOD, 1, errno.EPROTO, "1 descriptors came, 2 were expected"),
    "three descriptors": (GOOD, 3, errno.EPROTO, "3 descriptors came, 2 were expected"),
    "253 descriptors": (GOOD, 253, errno.EMSGSIZE, "with over 4 descriptors"),
    "unmount with two": (wire.Unmount(1).encode(), 2, errno.EPROTO, "2 descriptors came, 1 were expected"),
    "an answer of the broker's": (wire.Answer().encode(), 2, errno.EPROTO, "begins with MONT or UMNT"),
}


@pytest.mark.parametrize("what", PACKETS)
def test_a_message_that_is_none(broker: Yard, what: str) -> None:
    packet, count, number, words = PACKETS[what]
    fds = [broker.device(), broker.pin(broker.make())]
    fds += [broker.keep(os.dup(0)) for _ in range(count - 2)]
    refused(broker, broker.ask(packet, fds[:count]), number, words)


def test_no_descriptor_at_all(broker: Yard) -> None:
    with broker.connect() as connection:
        connection.send(GOOD)
        answer = wire.answer(connection.receive(wire.LARGEST))
    assert isinstance(answer, wire.Answer)
    refused(broker, answer, errno.EPROTO, "0 descriptors came")


def test_a_second_request_undoes_the_first(broker: Yard) -> None:
    with broker.connect() as connection:
        connection.send_with_fds(GOOD, [broker.device(), broker.pin(broker.make())])
        connection.send_with_fds(wire.Unmount(1).encode(), [broker.device()])
        wire.answer(connection.receive(wire.LARGEST))
        assert isinstance(wire.answer(connection.receive(wire.LARGEST)), wire.Answer)
    assert not broker.here()


# ---- unmounting ----


def test_one_s_own_mount_is_unmounted_by_its_id(broker: Yard) -> None:
    point = broker.make()
    assert broker.mount(broker.pin(point)).error == 0
    identity = broker.unique_id(broker.here()[0])
    answer = broker.unmount(broker.pin(point), identity)
    assert answer.error == 0, answer.sentence
    assert not broker.here()


def stays(broker: Yard, answer: wire.Answer, number: int, words: str) -> None:
    """Check that *answer* is that refusal."""
    print(f"errno {errno.errorcode.get(answer.error)}: {answer.sentence}")
    assert words in answer.sentence and answer.error == number, vars(answer)
    assert broker.here()


def test_a_mount_that_is_not_one_s_own(broker: Yard) -> None:
    point = broker.make()
    assert broker.mount(broker.pin(point)).error == 0
    root, identity = broker.pin(point), broker.unique_id(broker.here()[0])
    for uid in (BOB, 0):
        stays(broker, broker.unmount(root, identity, uid), errno.EPERM, "not yours")


def test_a_mount_that_is_not_fuse_s(broker: Yard) -> None:
    point = broker.make()
    kernel.mount("tmpfs", os.fspath(point), "tmpfs", 0, f"uid={ALICE}")
    identity = broker.unique_id(broker.here()[0])
    stays(broker, broker.unmount(broker.pin(point), identity), errno.EPERM, "a mount of tmpfs, not of FUSE")


def test_a_descriptor_and_an_id_that_do_not_belong_together(broker: Yard) -> None:
    mine, other = broker.make("mine"), broker.make("other", owner=BOB)
    assert broker.mount(broker.pin(mine)).error == broker.mount(broker.pin(other), uid=BOB).error == 0
    ids = {mount.point: broker.unique_id(mount) for mount in broker.here()}
    for root, identity in (
        (mine, 0), (mine, ids[os.fspath(other)]), (other, ids[os.fspath(mine)]), (mine, (1 << 64) - 1),
        (mine, broker.here()[0].mount_id),
    ):  # fmt: skip
        stays(broker, broker.unmount(broker.pin(root), identity), errno.EINVAL, "the descriptor is not of the mount")
    assert len(broker.here()) == 2


def test_what_lies_upon_one_s_mount_is_not_unmounted_in_its_place(broker: Yard) -> None:
    """umount(2) of a descriptor goes to the mount on top: here root's, of which nobody else may dispose."""
    point = broker.make()
    assert broker.mount(broker.pin(point)).error == 0
    root, identity = broker.pin(point), broker.unique_id(broker.here()[0])
    kernel.mount("tmpfs", os.fspath(point), "tmpfs")
    stays(broker, broker.unmount(root, identity), errno.EBUSY, "something is mounted in it")
    assert [mount.fstype for mount in broker.here()] == ["fuse.toy", "tmpfs"]


def test_a_mountof_another_namespace_is_not_reached(broker: Yard) -> None:
    fd = of_another_namespace(broker)
    answer = broker.unmount(fd, 1)
    assert (answer.error, "the mount is not in the broker's mount namespace" in answer.sentence) == (errno.EXDEV, True)


def test_what_one_cannot_name_one_cannot_unmount(broker: Yard) -> None:
    """A packet with an id, and a descriptor of something that lies on no mount."""
    answer = broker.ask(struct.pack(">4sHHQ", b"UMNT", 1, 0, 1), [a_socket(broker)])
    assert answer.error == errno.EXDEV


def test_the_log_has_each_refusal_with_who_it_was(broker: Yard) -> None:
    for _ in range(20):
        broker.mount(a_socket(broker), uid=CAROL)
    line = f"uid {CAROL}, pid {os.getpid()}: refused: the mount point is not in the broker's mount namespace"
    wait_until(lambda: line in broker.program.said(), "the line")
    assert 1 <= broker.program.said().count(line) <= 6  # and whoever is refused again and again does not fill it
