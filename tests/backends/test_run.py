"""`fuservice run`, `enter`, `mount --private`: for a user who may do nothing else, by the command line alone."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import mounted
from tests.support.user import UID, User, fresh_user
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.backends.conftest import Image

pytestmark = pytest.mark.needs(
    "root", "fuse", "fusermount3", "userns", "e2fsprogs", "loop", "ext4", "nobody-python", "installed"
)

PRIVATE_ONLY = "fusermount3: /usr/bin/fusermount3 is not set-user-ID root"


@pytest.fixture
def user() -> Iterator[User]:
    """Give a fresh user who has no other way to mount."""
    with fresh_user(fusermount="plain") as made:
        yield made
        made.check_nothing_left()


@pytest.fixture
def point(user: User) -> Path:
    """Give the directory that will be made for thing.img."""
    return user.runtime / "fuservice/thing"


@pytest.fixture
def thing(user: User, image: Image) -> Path:
    """Give the image, as a file of the user's."""
    path = user.make("thing.img", b"")
    subprocess.run(["cp", "--sparse=always", image.path, path], check=True)
    return path


def test_a_command_sees_the_mount_and_nobody_else_does(user: User, thing: Path, point: Path) -> None:
    show = f"echo $FUSERVICE_MOUNT; pwd; ls $FUSERVICE_MOUNT; grep ' {point} ' /proc/self/mountinfo; id -u; exit 7"
    code, said, errors = user.run("fuservice", "run", thing.name, "--", "sh", "-c", show)
    assert (code, errors) == (7, "")
    where, here, *names, mount, uid = said.splitlines()
    assert (where, here, uid) == (str(point), str(user.home), str(UID))
    assert "lost+found" in names
    assert f" ro,nosuid,nodev,noexec,relatime,nosymfollow - fuse.ext4 {thing} ro," in mount
    assert not point.exists() and not mounted(point)
    assert user.processes() == {}
    receipt = json.loads(user.run("fuservice", "why", "--json", thing).stdout)
    assert (receipt["back end"], receipt["reason"]) == (
        "namespace",
        "unmounted: the command that it was mounted for has ended",
    )
    assert receipt["options"]["granted"] == ["ro", "nosuid", "nodev", "noexec", "nosymfollow"]


@pytest.mark.parametrize(("command", "code", "says"), [
    (["sh", "-c", "kill -9 $$"], 137, ""),
    (["sh", "-c", "kill -TERM $$"], 143, ""),
    (["nosuch"], 127, "fuservice: nosuch: No such file or directory\n"),
    (["/etc/passwd"], 126, "fuservice: /etc/passwd: Permission denied\n"),
    (["echo", "--", "a", "--", "b"], 0, ""),
    (["sh", "-c", "yes | head -1 >/dev/null"], 0, ""),
])  # fmt: skip
def test_its_status_is_told_as_shells_do(user: User, thing: Path, command: list[str], code: int, says: str) -> None:
    ended = user.run("fuservice", "run", thing, "--", *command)
    assert (ended.code, ended.stderr) == (code, says)
    assert ended.stdout == ("-- a -- b\n" if command[0] == "echo" else "")


def test_without_a_command_it_is_the_shell(user: User, thing: Path, point: Path) -> None:
    assert user.run("fuservice", "run", thing, text="echo $FUSERVICE_MOUNT; exit 3\n") == (3, f"{point}\n", "")


def read_until(terminal: io.FileIO, word: bytes) -> None:
    """Read what is said until it has *word*."""
    said = b""
    while word not in said:
        assert select.select([terminal], [], [], 30)[0], f"nothing more is said after {said!r}"
        said += terminal.read(1000) or b""


def test_ctrl_c_is_for_the_command(user: User, thing: Path, point: Path) -> None:
    """On a terminal, whose driver sends it to all that run in the foreground."""
    master, slave = pty.openpty()
    # Whoever has started the tests may ignore it, and a shell cannot trap what it finds ignored.
    # Not in one read: a shell that is told just before it reads hears of it afterwards.
    waits = 'while [ -z "$caught" ]; do sleep 0.05; done; read answer'
    script = f"trap 'echo caught; caught=1' INT; echo ready; {waits}; ls $FUSERVICE_MOUNT | wc -l; exit 5"
    words = user.command(
        "env", "--default-signal=INT", "setsid", "--ctty", "--wait", "fuservice", "run", thing, "--", "sh", "-c", script
    )
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave) as started:
        os.close(slave)
        with io.FileIO(master, "r+") as terminal:  # who runs on it is hung up on when it is closed
            read_until(terminal, b"ready")
            terminal.write(b"\x03")
            read_until(terminal, b"caught")
            assert point.exists()
            terminal.write(b"\n")
            assert started.wait(20) == 5
    assert not point.exists()


def test_sigterm_is_passed_on(user: User, thing: Path, point: Path) -> None:
    started = user.start(
        "fuservice",
        "run",
        thing,
        "--",
        "sh",
        "-c",
        "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    )
    assert started.stdout and started.stdout.readline() == "ready\n"
    started.send_signal(signal.SIGTERM)
    said, errors = started.communicate(timeout=20)
    assert (started.returncode, said, errors) == (9, "told\n", "")
    assert not point.exists()


def test_what_the_command_leaves_behind_loses_the_mount(user: User, thing: Path, point: Path) -> None:
    script = "sleep 60 >/dev/null 2>&1 & echo $!"
    code, said, errors = user.run("fuservice", "run", thing, "--", "sh", "-c", script)
    assert (code, errors) == (0, "")
    left = int(said)
    assert f" {point} " not in Path(f"/proc/{left}/mountinfo").read_text()
    assert user.processes() == {left: "sleep"} and not point.exists()
    os.kill(left, signal.SIGKILL)


def test_a_server_that_dies_under_the_command_is_told(user: User, thing: Path, point: Path) -> None:
    """And the command goes on, with an empty place where the mount was."""
    started = user.start(
        "fuservice", "run", thing, "--", "sh", "-c", "echo ready; read answer; ls $FUSERVICE_MOUNT; exit 6"
    )
    assert started.stdout and started.stdout.readline() == "ready\n"
    (server,) = [pid for pid, name in user.processes().items() if name == "ext4"]
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not point.exists(), "the end of the mount")
    said, errors = started.communicate("\n", timeout=20)
    assert (started.returncode, said) == (6, "")
    missing, over = errors.splitlines()
    assert missing == f"ls: cannot access '{point}': No such file or directory"
    assert over == f"fuservice: {thing}: the mount was over before the command was: fuservice why 1"
    assert "its server died" in user.run("fuservice", "why", "1").stdout


def test_what_cannot_be_mounted_is_told_and_leaves_nothing(user: User) -> None:
    zeros = user.make("zeros.img", bytes(65536))
    code, said, errors = user.run("fuservice", "run", zeros, "--", "true")
    assert (code, said) == (1, "") and str(zeros) in errors, errors
    code, said, errors = user.run("fuservice", "run", "-t", "ext4", zeros, "--", "true")
    assert (code, said) == (1, "") and "no ext2, ext3 or ext4 filesystem" in errors
    assert user.run("fuservice", "run", "/nonexistent", "--", "true").code == 1
    assert user.run("fuservice", "run").code == 64
    assert not list(user.runtime.glob("fuservice/*"))


def test_a_private_mount_is_kept_entered_listed_and_unmounted(user: User, thing: Path, point: Path) -> None:
    way = f"fuservice: {point}: is seen by those who enter it: fuservice enter {point}\n"
    assert user.run("fuservice", "mount", "--private", thing) == (0, f"{point}\n", way)
    assert not mounted(point) and list(point.iterdir()) == []
    (row,) = json.loads(user.run("fuservice", "list", "--json").stdout)
    assert (row["private"], row["mount point"], row["source"], row["driver"]) == (True, str(point), str(thing), "ext4")
    for word in (point, thing, str(row["id"])):
        assert user.run(
            "fuservice", "enter", word, "--", "sh", "-c", "test -d $FUSERVICE_MOUNT/lost+found; exit 4"
        ).code == (4)
    busy = user.start("fuservice", "enter", point, "--", "sh", "-c", "cd $FUSERVICE_MOUNT && echo in && cat")
    assert busy.stdout and busy.stdout.readline() == "in\n"
    ended = user.run("fuservice", "umount", point)
    assert ended.code == 1 and "busy: a process that has entered it uses it: end it, or use -l" in ended.stderr
    busy.communicate("")
    assert user.run("fuservice", "umount", thing) == (0, "", "")
    assert user.processes() == {} and not point.exists()
    assert user.run("fuservice", "list").stdout == "nothing is mounted\n"
    script = f"fuservice enter {thing}"
    said = user.run("fuservice", "run", thing, "--", "sh", "-c", script)
    assert said == (1, "", f"fuservice: enter: {point}: is no private mount: it is seen from here\n")
    assert user.run("fuservice", "enter", point) == (1, "", f"fuservice: {point}: nothing is mounted there\n")


def test_on_a_directory_of_the_callers(user: User, thing: Path) -> None:
    own = user.make("mnt")
    assert user.run("fuservice", "mount", "--via=namespace", thing, own)[:2] == (0, f"{own}\n")
    assert user.run("fuservice", "umount", "--lazy", own) == (0, "", "")
    assert own.is_dir()


def test_a_private_mount_whose_server_dies_goes_and_is_remembered(user: User, thing: Path, point: Path) -> None:
    for number in (1, 2):
        assert user.run("fuservice", "mount", "--private", thing).stdout == f"{point}\n"
        (server,) = [pid for pid, name in user.processes().items() if name == "ext4"]
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not point.exists() and not user.processes(), "the end of all of it")
        assert "its server died" in user.run("fuservice", "why", str(number)).stdout


def test_a_holder_that_is_killed_leaves_no_ghost(user: User, thing: Path, point: Path) -> None:
    assert user.run("fuservice", "mount", "--private", thing).code == 0
    (holder,) = [pid for pid, name in user.processes().items() if name == "fuservice-hold"]
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: not user.processes(), "the end of the server", 10)
    assert user.run("fuservice", "list").stdout == "nothing is mounted\n"
    assert "was unmounted just now" in user.run("fuservice", "why", thing).stdout
    assert not point.exists()


def test_a_mount_that_all_should_see_is_refused_with_the_way_out(user: User, thing: Path) -> None:
    code, said, errors = user.run("fuservice", "mount", thing)
    assert (code, said) == (1, "") and PRIVATE_ONLY in errors
    assert "fuservice run" in errors


def test_doctor_says_that_only_private_mounts_are_possible(user: User) -> None:
    code, said, errors = user.run("fuservice", "doctor")
    assert (code, errors) == (0, "")
    assert PRIVATE_ONLY.replace("fusermount3: ", "fusermount3  cannot: ", 1) in said
    assert "namespace    can, only for `fuservice run' and `mount --private' (taken)" in said
    report = json.loads(user.run("fuservice", "doctor", "--json").stdout)
    assert (report["possible"], report["back end"], report["device"], report["cage"]) == (True, "namespace", None, None)


def test_doctor_says_what_is_wrong_with_the_device() -> None:
    with fresh_user(device_mode=0o600) as user:
        code, _, errors = user.run("fuservice", "doctor")
        assert code == 1
        assert (
            "/dev/fuse may not be opened by this user (its mode is 0600): it must be writable for its users" in errors
        )
        user.check_nothing_left()


def test_doctor_where_nothing_is_possible() -> None:
    """As in many containers: uid 0 without a capability, and no namespace to be had."""
    with fresh_user() as user:
        code, said, errors = user.run("fuservice", "doctor", extra=["--no-new-privs"])
        assert code == 0 and "fusermount3  cannot: this process has no_new_privs" in said, (code, said, errors)
        script = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all fuservice doctor"
        code, said, errors = user.run("unshare", "--user", "--map-root-user", "sh", "-c", script)
        assert code == 1
        assert (
            "namespace    cannot: no user namespace can be made: No space left on device (user.max_user_namespaces is 0)"
            in said
        )
        assert (
            "nothing can be mounted: ask for fusermount3 (package fuse3), for user namespaces, or for fuserviced"
            in errors
        )
        user.check_nothing_left()
