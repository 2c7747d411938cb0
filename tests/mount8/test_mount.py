"""mount(8) and umount(8): how they come to mount.fuservice, with which words, and what is mounted then."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.mount8.station import CONTENT, HELPER, MARK, PLACE, Station, shows
from tests.support import kernel
from tests.support.capabilities import PROGRAMS

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "strace", "installed"), pytest.mark.timeout(60)]

SAFE = {"ro", "nosuid", "nodev"}  # ro: our ext4 server only reads
NO_SERVICE = f"{HELPER}: no safe filesystem driver for none available.\n"
REMOUNT = "option remount: a mount cannot be changed: unmount it and mount it again\n"
MADE_UP = {
    ("-t", "fuservice.ext4"): (["-o", "rw", "-t", "fuservice.ext4"], SAFE),
    ("-t", "fuservice.ext4", "-r"): (["-o", "ro", "-t", "fuservice.ext4"], SAFE),
    ("-t", "fuservice.ext4", "-w"): (["-o", "rw", "-t", "fuservice.ext4"], SAFE),
    ("-t", "fuservice.ext4", "-n"): (["-n", "-o", "rw", "-t", "fuservice.ext4"], SAFE),
    ("-t", "fuservice.ext4", "-s"): (["-s", "-o", "rw", "-t", "fuservice.ext4"], SAFE),
    ("-t", "fuservice.ext4", "-o", "noexec,x-a.b=c,X-d,noauto"): (["-o", "rw,noexec", "-t", "fuservice.ext4"], SAFE | {"noexec"}),
    ("-t", "fuservice.ext4", "-o", "ro,user"): (["-o", "ro,noexec,nosuid,nodev,user", "-t", "fuservice.ext4"], SAFE | {"noexec"}),
    ("-t", "fuservice.ext4", "-o", "nofail,_netdev,defaults"): (["-o", "rw,nofail,_netdev", "-t", "fuservice.ext4"], SAFE),
    ("-t", "fuservice.ext4", "-o", "suid,dev,noatime"): (["-o", "rw,noatime", "-t", "fuservice.ext4"], SAFE | {"noatime"}),
}  # fmt: skip


@pytest.mark.parametrize("words", MADE_UP, ids=" ".join)
def test_mount_runs_the_helper_with_words_that_it_understands(machine: Station, words: tuple[str, ...]) -> None:
    passed, options = MADE_UP[words]
    ended, programs = machine.traced("mount", *words, machine.image, machine.point)
    assert ended == (0, "", "")
    assert [HELPER, str(machine.image), str(machine.point), *passed] in programs
    (mount,) = machine.mounted()
    at, fstype, source, shown = shows(mount)
    assert (at, fstype, source) == (str(machine.point), "fuse.ext4", str(machine.image))
    assert shown == options
    assert (machine.point / "file").read_bytes() == CONTENT


def test_a_source_may_say_the_type_as_for_mount_fuse(machine: Station) -> None:
    assert machine.mount("-t", "fuservice", f"ext4#{machine.image}", machine.point) == (0, "", "")
    (mount,) = machine.mounted()
    assert shows(mount) == (str(machine.point), "fuse.ext4", str(machine.image), SAFE)


def test_what_is_no_type_and_source_is_told(machine: Station) -> None:
    ended = machine.mount("-t", "fuservice", machine.image, machine.point)
    assert ended == (1, "", f"{HELPER}: which filesystem? expected -t fuservice.TYPE, or TYPE#SOURCE as source\n")


def test_verbose_says_what_the_helper_is_asked_and_fake_mounts_nothing(machine: Station) -> None:
    asked = f"{HELPER} {machine.image} {machine.point} -t ext4 -o ro\n"
    words = ("-t", "fuservice.ext4", "-o", "ro", machine.image, machine.point)
    assert machine.mount("-f", *words) == (0, "", "")
    assert machine.mount("-f", "-v", *words) == (0, asked, "")
    assert machine.mount("-f", "-t", "fuservice.none", machine.image, machine.point) == (0, "", "")
    assert not machine.mounted()
    assert machine.mount("-v", *words) == (0, asked, "")
    assert len(machine.mounted()) == 1


def test_what_only_userspace_knows_is_noted_unless_it_shall_not_be(machine: Station) -> None:
    words = ("-t", "fuservice.ext4", "-o", "x-note=1,user", machine.image, machine.point)
    assert machine.mount(*words).code == 0
    assert machine.utab() == f"SRC={machine.image} TARGET={machine.point} ROOT=/ OPTS=x-note=1,user\n"
    assert machine.run("umount", machine.point) == (0, "", "")
    assert machine.utab() == ""
    assert machine.mount("-n", *words).code == 0
    assert machine.utab() == ""


@pytest.mark.parametrize("by", ["point", "image"])
def test_umount_finds_it_by_mount_point_and_by_source(machine: Station, by: str) -> None:
    assert machine.mount("-t", "fuservice.ext4", machine.image, machine.point).code == 0
    assert machine.run("umount", getattr(machine, by)) == (0, "", "")
    assert not machine.mounted()


def test_a_remount_is_refused_with_a_sentence(machine: Station) -> None:
    """Also where mount(8) goes by the type that mountinfo shows: there, /sbin/mount.fuse.ext4 stands before mount.fuse."""
    assert machine.mount("-t", "fuservice.ext4", machine.image, machine.point).code == 0
    before = machine.mounted()
    words = ("-t", "fuservice.ext4", "-o", "remount,suid", machine.image, machine.point)
    assert machine.mount(*words) == (1, "", f"{HELPER}: {REMOUNT}")
    assert machine.mount("-o", "remount,suid", machine.point) == (1, "", f"/sbin/mount.fuse.ext4: {REMOUNT}")
    ended = machine.run(PROGRAMS / "fuservicemount", machine.image, machine.point, "-t", "ext4", "-o", "ro,remount")
    assert ended == (1, "", f"{PROGRAMS}/fuservicemount: {REMOUNT}")
    assert machine.mounted() == before


@pytest.mark.parametrize("stale", [False, True], ids=["no socket", "nobody listens"])
def test_without_a_service_nothing_is_mounted_and_no_other_program_is_tried(machine: Station, *, stale: bool) -> None:
    """mount.fuse3 runs the program of that name, as root and uncaged. There is one, which leaves a mark."""
    place = Path("/run/filesystems/none")
    if stale:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
            bound.bind(str(place))
    ended, programs = machine.traced("mount", "-t", "fuservice.none", machine.image, machine.point)
    assert ended == (2, "", NO_SERVICE)
    names = {os.path.basename(words[0]) for words in programs}  # noqa: PTH119
    assert names == {"mount", "mount.fuservice", "readlink", "fuservicemount", "python3"}
    assert not MARK.exists() and not machine.mounted()
    machine.mount("-t", "fuse.none", machine.image, machine.point)
    assert MARK.exists(), "the trap is none: mount.fuse did not run it either"
    MARK.unlink()
    place.unlink(missing_ok=True)


def test_another_mount_namespace_is_not_mistaken_for_ours(machine: Station) -> None:
    ended = machine.mount("-N", "/proc/self/ns/mnt", "-t", "fuservice.ext4", machine.image, machine.point)
    assert ended.code == 1 and not machine.mounted()
    assert ended.stderr == (
        f"{HELPER}: option -N: cannot enter another mount namespace: run mount(8) in it, with nsenter(1)\n"
    )


def test_a_failure_is_told_in_sentences_and_leaves_nothing(machine: Station) -> None:
    failed = f"{HELPER}: fuse server failed mount, check dmesg/logs for details.\n"
    missing, zeros = PLACE / "missing", PLACE / "zeros"
    zeros.write_bytes(bytes(1 << 20))
    for words, sentence in (
        (("-t", "fuservice.ext4", missing, machine.point), f"{HELPER}: {missing}: No such file or directory\n"),
        (("-t", "fuservice.ext4", zeros, machine.point), ""),
        (("-t", "fuservice.ext4", "-o", "nosuchoption", machine.image, machine.point), ""),
        (("-s", "-t", "fuservice.ext4", "-o", "nosuchoption", machine.image, machine.point), ""),
    ):
        assert machine.mount(*words) == (1, "", sentence + failed)
    assert not machine.mounted()


@pytest.mark.needs("nobody-python")
def test_an_ordinary_user_is_told_that_mounting_needs_root(machine: Station) -> None:
    """mount(8) is setuid, and runs a helper as the user: in fstab a `user' line is what lets it come so far."""
    fstab = machine.fstab(f"{machine.image} {machine.point} fuservice.ext4 ro,user")
    heard = machine.listener.said()
    kernel.mount(str(fstab), "/etc/fstab", None, 4096)
    try:
        ended = machine.mount(machine.point, uid=65534)
        refused = machine.mount(machine.other, uid=65534)
        assert machine.mount(machine.point).code == 0
        assert machine.run("umount", machine.point, uid=65534).code != 0
    finally:
        kernel.umount2("/etc/fstab", kernel.MNT_DETACH)
    sentence = "mounting needs root: a `user' line in fstab does not give us the right to"
    assert ended == (1, "", f"{HELPER}: {sentence}\n")
    assert refused.code != 0 and HELPER not in refused.stderr
    assert machine.listener.said() == heard, "a server was started for nothing"
    assert len(machine.mounted()) == 1, "nobody unmounted what root mounted"
