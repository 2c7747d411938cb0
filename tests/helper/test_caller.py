"""What an ordinary user may have mounted, and where, by libfuse's rules and /etc/fuse.conf."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest

from fuservice.errors import RefusalError
from fuservice.helper.caller import Caller, fuse_mounts
from fuservice.helper.fuseconf import DEFAULT_MOUNT_MAX, FuseConf, leading_integer, parse, read
from fuservice.helper.mountpoint import MountPoint
from fuservice.proto import layouts
from tests.support import kernel

NOBODY = 65534


def caller(uid: int = NOBODY, *, allow_other: bool = False, mount_max: int = DEFAULT_MOUNT_MAX) -> Caller:
    """Return a caller under a fuse.conf."""
    conf = FuseConf()
    conf.user_allow_other, conf.mount_max = allow_other, mount_max
    return Caller(conf, uid)


@pytest.mark.parametrize(("uid", "allowed", "flags"), [
    (0, False, layouts.CAN_ALLOW_OTHER | layouts.CAN_FUSEBLK), (NOBODY, False, 0), (NOBODY, True, layouts.CAN_ALLOW_OTHER),
])  # fmt: skip
def test_the_hello_says_what_the_caller_could_ask_for(uid: int, flags: int, *, allowed: bool) -> None:
    assert caller(uid, allow_other=allowed).abilities == flags


def test_the_caller_is_who_runs_us() -> None:
    assert Caller(FuseConf()).uid == os.getuid()


@pytest.mark.parametrize(("wanted", "told"), [
    (0, ["unsafe option suid ignored", "unsafe option dev ignored"]), (6, []), (2, ["unsafe option dev ignored"]),
])  # fmt: skip
def test_a_user_gets_no_suid_and_no_dev(wanted: int, told: list[str]) -> None:
    said: list[str] = []
    assert caller().flags(wanted | 1, said.append) == 7 and said == told
    assert caller(0).flags(wanted, said.append) == wanted and said == told


def judge(path: Path, who: Caller) -> int:
    """Return the errno with which a child of *who*'s uid judges the mount point *path*; 0 for none."""
    pid = os.fork()
    if not pid:
        code = 255
        with contextlib.suppress(BaseException):
            point = MountPoint(str(path))  # pinned by root, as if by a helper with rights of its own
            os.setresuid(who.uid, who.uid, who.uid)
            code = _judged(point, who)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _judged(point: MountPoint, who: Caller) -> int:
    try:
        who.check_named(point)
        who.check_mount(point)
    except RefusalError as refusal:
        return refusal.errno
    return 0


@pytest.fixture
def tmpfs(mount_point: Path) -> Path:
    """Give a directory on a filesystem that users may mount over."""
    kernel.mount("tmpfs", str(mount_point), "tmpfs", 0, "mode=755")
    for parent in mount_point.parents:
        if str(parent).startswith("/tmp/") and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return mount_point


@pytest.mark.needs("root")
@pytest.mark.parametrize(("mode", "owner", "number"), [
    (0o755, NOBODY, 0), (0o755, 0, errno.EPERM), (0o777, 0, 0), (0o1777, 0, errno.EPERM), (0o1777, NOBODY, 0),
    (0o500, NOBODY, errno.EPERM),
])  # fmt: skip
def test_a_directory_must_be_the_users_to_write(tmpfs: Path, mode: int, owner: int, number: int) -> None:
    place = tmpfs / "place"
    place.mkdir()
    place.chmod(mode)
    os.chown(place, owner, owner)
    assert judge(place, caller()) == number
    assert judge(place, caller(0)) == 0


@pytest.mark.needs("root")
@pytest.mark.parametrize(("mode", "owner", "number"), [(0o644, NOBODY, 0), (0o644, 0, errno.EACCES), (0o666, 0, 0)])
def test_a_file_must_be_the_users_to_write(tmpfs: Path, mode: int, owner: int, number: int) -> None:
    place = tmpfs / "place"
    place.touch()
    place.chmod(mode)
    os.chown(place, owner, owner)
    assert judge(place, caller()) == number


@pytest.mark.needs("root")
def test_over_the_kernels_own_filesystems_no_user_mounts(mount_point: Path) -> None:
    kernel.mount("none", str(mount_point), "ramfs", 0, "mode=777")
    assert judge(mount_point, caller()) == 0 or judge(mount_point, caller()) == errno.EPERM
    kernel.umount2(str(mount_point), kernel.MNT_DETACH)
    kernel.mount("proc", str(mount_point), "proc")
    fd = f"{mount_point}/{os.getpid()}/task"
    assert judge(Path(fd), caller()) == errno.EPERM


@pytest.mark.needs("root", "fuse")
def test_too_many_mounts_are_too_many(tmpfs: Path) -> None:
    place = tmpfs / "place"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    already = fuse_mounts()
    assert judge(place, caller(mount_max=already)) == errno.EUSERS
    assert judge(place, caller(mount_max=already + 1)) == 0
    assert judge(place, caller(mount_max=-1)) == 0


# ---- /etc/fuse.conf ----


@pytest.mark.parametrize(("text", "allowed", "most", "told"), [
    ("", False, 1000, []), ("# comment\n\n   \n", False, 1000, []), ("user_allow_other\n", True, 1000, []),
    (" user_allow_other # yes\nmount_max=7\n", True, 7, []), ("mount_max = 0x10 junk\n", False, 16, []),
    ("mount_max = 010\n", False, 8, []), ("mount_max=-1\n", False, -1, []),
    ("mount_max = -2\n", False, 1000, ["invalid mount_max = -2 in F at line 1"]),
    ("\nmount_max = many\n", False, 1000, ["invalid mount_max = many in F at line 2"]),
    ("user_allow_others\n", False, 1000, ["unknown parameter in F at line 1: 'user_allow_others'"]),
    ("mount_max\n", False, 1000, ["unknown parameter in F at line 1: 'mount_max'"]),
    ("user_allow_other", False, 1000, ["reading F: missing newline at end of file"]),
    ("#" * 300 + "\nmount_max=3\n", False, 3, ["reading F: line 1 too long"]),
    ("mount_max = \n", False, 1000, ["invalid mount_max =  in F at line 1"]),
])  # fmt: skip
def test_the_file_is_read_as_libfuse_reads_it(text: str, most: int, told: list[str], *, allowed: bool) -> None:
    said: list[str] = []
    conf = parse(text.encode(), said.append, "F")
    assert (conf.user_allow_other, conf.mount_max, said) == (allowed, most, told)


@pytest.mark.parametrize(("text", "number"), [
    ("12", 12), ("-5x", -5), ("+7", 7), ("0x1F", 31), ("017", 15), ("0", 0), ("0x", None), ("", None), ("x", None),
    ("-", None), ("--1", None), ("08", 0), ("9" * 40, int("9" * 18)), ("\u0661", None),
])  # fmt: skip
def test_numbers_are_read_as_scanf_reads_them(text: str, number: int | None) -> None:
    assert leading_integer(text) == number


def test_a_file_that_is_not_there_says_nothing_and_one_that_cannot_be_read_does(tmp_path: Path) -> None:
    said: list[str] = []
    assert read(said.append, str(tmp_path / "none")).mount_max == DEFAULT_MOUNT_MAX and said == []
    assert read(said.append, str(tmp_path)).mount_max == DEFAULT_MOUNT_MAX
    assert said == [f"reading {tmp_path}: Is a directory"]
    (tmp_path / "conf").write_text("mount_max = 3\n")
    assert read(said.append, str(tmp_path / "conf")).mount_max == 3
