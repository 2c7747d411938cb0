"""fusermount3 of the system: an ordinary user mounts, reads all and unmounts; and what it cannot or must not do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backends.conftest import drive
from tests.support.capabilities import PROGRAMS
from tests.support.compare import compare_facts
from tests.support.mounts import mounted
from tests.support.user import UID, fresh_user
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.backends.conftest import Image
    from tests.support.user import User

pytestmark = pytest.mark.needs(
    "root", "fuse", "fusermount3", "userns", "e2fsprogs", "loop", "ext4", "nobody-python", "installed"
)

IMAGE_ENTRIES = 500  # at least
WHY_NOT = "from fuservice.backends.fusermount import Fusermount; print(Fusermount().why_not())"
DETACH = "import sys; from fuservice.backends.fusermount import Fusermount; Fusermount().detach(sys.argv[1], lazy='l' in sys.argv)"


def unmount(user: User, point: Path, *words: str) -> str:
    """Unmount by the back end; return the last line of what was said."""
    ended = user.run(PROGRAMS / "python", "-c", DETACH, point, *words)
    return ended.stderr.strip().rpartition("\n")[2]


def test_a_user_reads_all_that_the_kernel_shows(user: User, image: Image) -> None:
    point = user.make("mnt")
    assert drive(user, "", image.path, point, "-t", "ext4", "-o", "ro,noexec") == ("fusermount3", [], [], None)
    mount = mounted(point)
    assert mount and {"ro", "nosuid", "nodev", "noexec"} <= set(mount.options.split(","))
    assert (mount.fstype, mount.source) == ("fuse.ext4", os.fspath(image.path))
    assert f"user_id={UID}" in mount.super_options
    result = compare_facts(user.facts(point), image.facts)
    assert not result.differences, "\n".join(result.differences[:30])
    assert result.entries > IMAGE_ENTRIES
    assert os.fspath(point) in user.run("fuservice", "list", "--all").stdout
    assert unmount(user, point) == ""
    wait_until(lambda: not user.processes(), "the end of the server")


def test_a_busy_mount_stays_unless_lazily(user: User, image: Image) -> None:
    point = user.make("mnt")
    assert drive(user, "fusermount3", image.path, point, "-t", "ext4").error is None
    user_of_it = user.start("sleep", "30")
    user_of_it.kill()
    user_of_it.communicate()
    reader = user.start("sh", "-c", f"cd {point} && echo there && cat")
    assert reader.stdout and reader.stdout.readline() == "there\n"
    assert "cannot be unmounted: fusermount3: failed to unmount" in unmount(user, point)
    assert mounted(point)
    assert unmount(user, point, "l") == ""
    assert not mounted(point)
    reader.communicate("")
    wait_until(lambda: not user.processes(), "the end of the server")


def test_what_is_not_mounted_is_told(user: User) -> None:
    assert "not found" in unmount(user, user.make("mnt"))
    assert "No such file or directory" in unmount(user, user.home / "missing/mnt")


def kill(user: User, names: Collection[str], number: str = "KILL") -> None:
    """Send the processes of *user* that are called one of *names* a signal, in that order."""
    pids = {name: str(pid) for pid, name in user.processes().items()}
    user.run("kill", f"-{number}", *(pids[name] for name in names))


def test_nobody_keeps_the_other_device(user: User, image: Image) -> None:
    """A server that is killed must not leave whoever waits for its answer waiting, whoever else is stopped."""
    point, others = user.make("mnt"), ("fuservice-direc", "fuservice-guard")
    assert drive(user, "fusermount3", image.path, point, "-t", "ext4").error is None
    kill(user, others, "STOP")
    kill(user, ("ext4",))
    wait_until(lambda: "ext4" not in user.processes().values(), "the end of the server")
    ended = user.run("ls", point)
    assert ended.code == 2 and ended.stderr.strip().endswith(("endpoint is not connected", "caused connection abort"))
    kill(user, others, "CONT")
    wait_until(lambda: not mounted(point) and not user.processes(), "the end of the mount, and of all processes")


@pytest.mark.parametrize("victims", [("ext4",), ("fuservice-direc",), ("ext4", "fuservice-direc")])
def test_whoever_is_killed_the_mount_point_is_usable_again(user: User, image: Image, victims: tuple[str, ...]) -> None:
    point = user.make("mnt")
    for _ in range(5):
        assert drive(user, "fusermount3", image.path, point, "-t", "ext4").error is None
        kill(user, victims)
        wait_until(lambda: not mounted(point), "the end of the mount")
        assert user.run("ls", point) == (0, "", "")
        wait_until(lambda: not user.processes(), "the end of all processes")


@pytest.mark.parametrize("name", ["-u", "a,b", "a,b\\c", "new\nline", "with blank", "ümlaut", "\udcff"])
def test_odd_names_of_mount_point_and_source(user: User, image: Image, name: str) -> None:
    source, point = user.make(f"{name}.img", b""), user.make(name)
    user.run("cp", "--sparse=always", image.path, source)
    told = drive(user, "fusermount3", f"{user.home}/{name}.img", f"{user.home}/{name}", "-t", "ext4", "-o", "ro")
    assert told.error is None, told
    mount = mounted(point)
    plain = name.isprintable() and "\\" not in name  # what else could not stand in mountinfo is not shown by our server
    assert mount and mount.source == (os.fspath(source) if plain else "ext4"), mount
    assert unmount(user, point) == ""


def test_what_it_does_not_know_is_left_out_and_told(user: User, image: Image) -> None:
    point = user.make("mnt")
    told = drive(user, "", image.path, point, "-t", "ext4", "-o", "ro,nosymfollow,sync,noatime,nodiratime")
    assert (told.error, told.lost) == (None, ["nosymfollow", "nodiratime"])
    mount = mounted(point)
    assert mount and "noatime" in mount.options.split(",") and "sync" in mount.super_options.split(",")
    assert unmount(user, point) == ""


def test_its_refusal_is_a_sentence_of_ours(user: User, image: Image) -> None:
    (user.place / "etc/fuse.conf").write_text("")
    told = drive(user, "", image.path, user.make("mnt"), "-t", "ext4", "-o", "allow_other")
    assert "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf" in told.said
    told = drive(user, "", image.path, "/srv", "-t", "ext4")
    assert told.error == "fuse server failed mount, check dmesg/logs for details."
    assert "user has no write access to mountpoint /srv" in told.said


def test_allow_other_where_the_administrator_allows_it(image: Image) -> None:
    with fresh_user(fuse_conf="user_allow_other\n") as user:
        point = user.make("mnt")
        assert drive(user, "", image.path, point, "-t", "ext4", "-o", "ro,allow_other").error is None
        assert os.listdir(point)
        assert unmount(user, point) == ""
        user.check_nothing_left()


def test_without_new_privileges_it_is_refused(user: User) -> None:
    ended = user.run(PROGRAMS / "python", "-c", WHY_NOT, extra=["--no-new-privs"])
    assert "this process has no_new_privs" in ended.stdout, ended


def test_without_the_capability_in_reach(user: User) -> None:
    ended = user.run(PROGRAMS / "python", "-c", WHY_NOT, extra=["--bounding-set=-sys_admin"])
    assert "CAP_SYS_ADMIN is not in this process's bounding set" in ended.stdout, ended


def test_in_a_user_namespace_root_is_not_root(user: User) -> None:
    ended = user.run("unshare", "-U", "--map-user", str(UID), PROGRAMS / "python", "-c", WHY_NOT)
    assert "/usr/bin/fusermount3 belongs to uid 65534 and not to root here" in ended.stdout, ended


def test_where_it_is_not_set_user_id() -> None:
    with fresh_user(fusermount="plain") as user:
        ended = user.run(PROGRAMS / "python", "-c", WHY_NOT)
        assert ended.stdout == "/usr/bin/fusermount3 is not set-user-ID root\n", ended


def test_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from fuservice.backends import fusermount

    monkeypatch.setattr(fusermount, "DIRECTORIES", ("/nonexistent",))
    assert fusermount.Fusermount().why_not() == "neither fusermount3 nor fusermount is in /nonexistent"


def test_the_callers_path_does_not_say_which_program(user: User, image: Image) -> None:
    """What is found by a name that anybody could give would be trusted with a mount."""
    (user.home / "fusermount3").write_text("#!/bin/sh\ntouch /tmp/taken; exit 1\n")
    (user.home / "fusermount3").chmod(0o755)
    user.environment["PATH"] = f"{user.home}:{user.environment['PATH']}"
    point = user.make("mnt")
    assert drive(user, "", image.path, point, "-t", "ext4").error is None
    assert unmount(user, point) == ""
