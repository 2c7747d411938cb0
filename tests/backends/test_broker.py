"""The broker's client: an ordinary user on a machine without set-user-ID programs, where ``fuserviced`` was started by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.broker.wire import SOCKET
from tests.backends.conftest import drive, in_checkout
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.compare import compare_facts
from tests.support.mounts import mounted
from tests.support.processes import Program
from tests.support.user import UID, User, fresh_user
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.backends.conftest import Image

pytestmark = pytest.mark.needs("root", "fuse", "userns", "e2fsprogs", "loop", "ext4", "installed", "nobody-python")

IMAGE_ENTRIES = 500  # at least
WHY_NOT = "from fuservice.backends.broker import Broker; print(Broker().why_not())"
DETACH = "import sys; from fuservice.backends.broker import Broker; Broker().detach(sys.argv[1], lazy='l' in sys.argv)"


@pytest.fixture
def without() -> Iterator[User]:
    """Give a fresh user on a machine whose fusermount3 has no set-user-ID bit, and no broker."""
    with fresh_user(fusermount="plain") as made:
        kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
        yield made
        kernel.umount2("/run", kernel.MNT_DETACH)
        assert made.left() == []


@pytest.fixture
def user(without: User, tmp_path: Path) -> Iterator[User]:
    """The same, with a broker."""
    program = Program([PROGRAMS / "python", "-I", "-m", "fuservice.cli.broker"], tmp_path / "log")
    wait_until(lambda: "listening on" in program.said() or program.ended(), "a broker that listens", 20)
    yield without
    assert program.stop() == 0, program.said()
    print(program.said())


def unmount(user: User, point: Path, *words: str) -> str:
    """Unmount by the back end; return the last line of what was said."""
    ended = user.run(PROGRAMS / "python", "-c", DETACH, point, *words)
    return ended.stderr.strip().rpartition("\n")[2]


def test_a_user_reads_all_that_the_kernel_shows(user: User, image: Image) -> None:
    point = user.make("mnt")
    assert drive(user, "", image.path, point, "-t", "ext4", "-o", "ro,noexec") == ("broker", [], [], None)
    mount = mounted(point)
    assert mount and {"ro", "nosuid", "nodev", "noexec"} <= set(mount.options.split(","))
    assert (mount.fstype, mount.source) == ("fuse.ext4", os.fspath(image.path))
    assert f"user_id={UID},group_id={UID}" in mount.super_options
    result = compare_facts(user.facts(point), image.facts)
    assert not result.differences, "\n".join(result.differences[:30])
    assert result.entries > IMAGE_ENTRIES
    assert os.fspath(point) in user.run("fuservice", "list", "--all").stdout
    assert unmount(user, point) == ""
    assert not mounted(point)
    wait_until(lambda: not user.processes(), "the end of the server")


def test_in_one_word(user: User, image: Image) -> None:
    ended = user.run("fuservice", "mount", image.path)
    assert ended.code == 0, ended
    point = Path(ended.stdout.strip())
    assert mounted(point) and user.run("ls", point).stdout
    assert user.run("fuservice", "umount", point).code == 0
    assert not mounted(point) and not point.exists()
    wait_until(lambda: not user.processes(), "the end of the server")


def test_a_busy_mount_stays_unless_lazily(user: User, image: Image) -> None:
    point = user.make("mnt")
    assert drive(user, "broker", image.path, point, "-t", "ext4").error is None
    reader = user.start("sh", "-c", f"cd {point} && echo there && cat")
    assert reader.stdout and reader.stdout.readline() == "there\n"
    said = unmount(user, point)
    assert f"{point}: busy: " in said and f"sh[{reader.pid}]" in said
    assert mounted(point)
    assert unmount(user, point, "l") == ""
    assert not mounted(point)
    reader.communicate("")
    wait_until(lambda: not user.processes(), "the end of the server")


def test_a_directory_of_another_s_in_which_one_may_write(user: User, image: Image) -> None:
    shared = user.place / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    words = in_checkout("-m", "tests.backends.drive", "broker", image.path, shared, "-t", "ext4")
    ended = user.run(
        "sh", "-c", 'umask 077 && exec "$@"', "sh", *words
    )  # the broker enters what we make there all the same
    assert '"error"' not in ended.stdout and mounted(shared), ended
    assert unmount(user, shared) == ""
    assert not list(shared.iterdir())
    shared.chmod(0o755)
    error = drive(user, "broker", image.path, shared, "-t", "ext4").error
    assert error is not None and not mounted(shared)
    shared.rmdir()


def test_a_file_of_another_s_in_which_one_may_write(user: User, image: Image) -> None:
    """Our server mounts on directories; the client shows a file opened for writing all the same."""
    code = """
import os, sys
from fuservice.backends.broker import Broker
from fuservice.helper.attach import Plan
from fuservice.helper.mountpoint import MountPoint
from fuservice.linux.fusedev import open_device
plan = Plan(fuse_device=open_device(), fuseblk=False, subtype="toy", source="src", flags=0, options={"max_read": "4096"})
broker, place = Broker(), MountPoint(sys.argv[1])
mount = broker.attach(plan, place)
print(broker.lost, open("/proc/self/mountinfo").read().count(" fuse.toy src "))
mount.detach()
print(open("/proc/self/mountinfo").read().count(" fuse.toy src "))
for one in (plan.fuse_device, place, mount):
    one.close()
"""
    file = user.place / "file"
    file.touch()
    file.chmod(0o666)
    ended = user.run(PROGRAMS / "python", "-c", code, file)
    assert (ended.code, ended.stdout) == (0, "['suid', 'dev'] 1\n0\n"), ended.stderr
    file.chmod(0o644)
    ended = user.run(PROGRAMS / "python", "-c", code, file)
    assert ended.stderr.rstrip().endswith(
        "the mount point is a file that is not yours: send it opened for reading and writing"
    )
    file.unlink()


def test_what_the_broker_refuses_is_told_in_its_words(user: User, image: Image) -> None:
    point = user.make("mnt")
    answer = drive(user, "broker", image.path, point, "-t", "ext4", "-o", "allow_other")
    assert answer.error is not None
    assert "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf" in " ".join(
        [*answer.said, answer.error]
    )
    assert not mounted(point)
    wait_until(lambda: not user.processes(), "the end of the server")


def test_what_is_not_mounted_is_told(user: User) -> None:
    assert "nothing is mounted there" in unmount(user, user.make("mnt"))
    assert unmount(user, Path("/nonexistent/mnt")).endswith("RefusalError: /nonexistent/mnt: No such file or directory")


def test_where_no_broker_listens(without: User) -> None:
    said = without.run(PROGRAMS / "python", "-c", WHY_NOT).stdout
    assert said == f"no broker listens at {SOCKET} (the administrator can start one: fuserviced(8))\n"


def signal_all(user: User, number: str, name: str = "") -> None:
    """Send a signal to all processes of the user, or to those with this name."""
    for pid in [pid for pid, called in user.processes().items() if name in ("", called)]:
        user.run("kill", f"-{number}", str(pid))


def test_a_mount_that_everybody_has_left_can_be_unmounted(user: User, image: Image) -> None:
    point = user.make("mnt")
    assert drive(user, "broker", image.path, point, "-t", "ext4").error is None
    signal_all(user, "KILL")
    wait_until(lambda: not user.processes(), "the end of the server")
    assert user.run("ls", point).code == 2
    assert unmount(user, point) == ""
    assert not mounted(point)
    for record in (user.runtime / "fuservice-servers").iterdir():  # of the supervisor, who could not remove it
        record.unlink()


def test_a_server_that_hangs_does_not_hang_the_unmounting(user: User, image: Image) -> None:
    point = user.make("mnt")
    assert drive(user, "broker", image.path, point, "-t", "ext4").error is None
    reader = user.start("sh", "-c", f"cd {point} && echo there && cat")
    assert reader.stdout and reader.stdout.readline() == "there\n"
    signal_all(user, "STOP", "ext4")
    assert f"sh[{reader.pid}]" in unmount(user, point)
    assert unmount(user, point, "l") == ""
    assert not mounted(point)
    signal_all(user, "CONT", "ext4")
    reader.communicate("")
    wait_until(lambda: not user.processes(), "the end of the server")


def test_a_user_in_a_namespace_of_their_own_is_told_so(user: User) -> None:
    code = DETACH.replace("detach(sys.argv[1], lazy='l' in sys.argv)", "unmount(1)")
    ended = user.run("unshare", "-Ur", PROGRAMS / "python", "-c", code)
    assert ended.stderr.rstrip().endswith("RefusalError: the broker: you are in another user namespace than the broker")
