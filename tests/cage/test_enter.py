"""The cage as the kernel shows it from outside, started by root and by a plain user, and as those inside find it."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuservice.cage.credentials import FIRST_UID
from fuservice.cage.plan import Profile, clone_flags, enter, plan, unshare
from fuservice.linux.clone import clone
from tests.cage.caged import NOBODY, PLAIN, Caged, become_nobody
from tests.linux.children import Said, in_child
from tests.support import kernel
from tests.support.mounts import parse_mountinfo
from tests.support.processes import status

pytestmark = pytest.mark.needs("root", "userns")

ROOT = Profile()
SPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
starters = pytest.mark.parametrize("profile", [ROOT, PLAIN], ids=["root", "plain"])


@contextmanager
def standing(profile: Profile, without: Collection[str] = ()) -> Iterator[Caged]:
    """Give a process that has entered and does nothing; kill it in the end."""
    reading, writing = os.pipe()

    def wait() -> None:
        os.write(2, b"in\n")
        os.readv(3, [bytearray(1)])

    caged = Caged(wait, connection=reading, profile=profile, without=without)
    try:
        while "in\n" not in caged.said():
            assert os.waitid(os.P_PID, caged.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, caged.said()
        yield caged
    finally:
        os.close(reading)
        os.close(writing)
        caged.kill()


def inside(act: Callable[[], object], profile: Profile = ROOT, without: Collection[str] = ("seccomp",)) -> str:
    """Return what *act* returns in the cage, as text."""
    caged = Caged(lambda: os.write(2, str(act()).encode()) and 0, profile=profile, without=without)
    assert caged.ended() == 0, caged.said()
    return caged.said()


def outcome(attempt: Callable[[], object]) -> Callable[[], int | str]:
    """Return a function that gives the errno that *attempt* fails with, or "done"."""

    def told() -> int | str:
        try:
            attempt()
        except OSError as error:
            return error.errno or "no number"
        return "done"

    return told


@starters
def test_what_proc_shows_of_it(profile: Profile) -> None:
    with standing(profile) as caged:
        seen = status(caged.pid)
        uid = NOBODY if profile is PLAIN else FIRST_UID + caged.pid
        assert seen["Uid"].split() == seen["Gid"].split() == [str(uid)] * 4
        assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert seen["Groups"] == "" and seen["NSpid"].split()[-1] == "1" and seen["Threads"] == "1"
        assert (seen["NoNewPrivs"], seen["Seccomp"], seen["Seccomp_filters"]) == ("1", "2", "1")
        assert seen["Umask"] == "0077"
        assert int(Path(f"/proc/{caged.pid}/oom_score_adj").read_text()) >= 500
        assert Path(f"/proc/{caged.pid}/mem").stat().st_uid == 0, "not dumpable"
        assert os.getsid(caged.pid) == caged.pid


@starters
def test_its_namespaces_are_nobody_elses(profile: Profile) -> None:
    with standing(profile) as one, standing(profile) as two:
        for space in SPACES:
            seen = {Path(f"/proc/{pid}/ns/{space}").readlink() for pid in (one.pid, two.pid, os.getpid())}
            assert len(seen) == 3, space
        users = [Path(f"/proc/{pid}/ns/user").readlink() for pid in (one.pid, os.getpid())]
        assert (users[0] != users[1]) is (profile is PLAIN)
        if profile is ROOT:
            assert status(one.pid)["Uid"] != status(two.pid)["Uid"]
        else:
            assert Path(f"/proc/{one.pid}/uid_map").read_text().split() == [str(NOBODY), str(NOBODY), "1"]
            assert Path(f"/proc/{one.pid}/setgroups").read_text() == "deny\n"


@starters
def test_its_root_is_empty_and_its_network_has_nothing_that_is_up(profile: Profile) -> None:
    with standing(profile) as caged:
        assert os.listdir(f"/proc/{caged.pid}/root") == []
        (mount,) = parse_mountinfo(Path(f"/proc/{caged.pid}/mountinfo").read_text())
        assert (mount.point, mount.fstype) == ("/", "tmpfs")
        assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} <= set(mount.options.split(","))
        devices = Path(f"/proc/{caged.pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        assert len(Path(f"/proc/{caged.pid}/net/route").read_text().splitlines()) <= 1, "a headline at most"


@starters
def test_it_has_nothing_open_but_what_it_was_given(profile: Profile) -> None:
    stray = os.open("/", os.O_RDONLY)
    os.set_inheritable(stray, True)  # noqa: FBT003
    with standing(profile) as caged:
        assert sorted(os.listdir(f"/proc/{caged.pid}/fd")) == ["0", "1", "2", "3"]
    os.close(stray)


@starters
def test_its_limits_are_hard(profile: Profile) -> None:
    expected = {
        "Max open files": 64, "Max address space": 1 << 30, "Max core file size": 0, "Max processes": 0, "Max file size": 0,
        "Max locked memory": 0, "Max msgqueue size": 0, "Max pending signals": 0, "Max nice priority": 0,
        "Max realtime priority": 0,
    }  # fmt: skip
    with standing(profile) as caged:
        text = Path(f"/proc/{caged.pid}/limits").read_text()
    found = {name: re.search(rf"^{name} +(\S+) +(\S+)", text, re.MULTILINE) for name in expected}
    assert {name: match and match.groups() for name, match in found.items()} == {
        name: (str(value), str(value)) for name, value in expected.items()
    }


def test_the_securebits_are_locked_and_the_host_has_no_name() -> None:
    def tell() -> tuple[int, str]:
        from fuservice.linux import prctl  # it is imported already

        return prctl.prctl(27), os.uname().nodename  # PR_GET_SECUREBITS

    assert inside(tell) == "(239, 'fuservice')"
    assert os.uname().nodename != "fuservice"


def connect() -> None:
    """Go to the network."""
    with socket.socket() as tcp:
        tcp.connect(("127.0.0.1", 1))


@starters
@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (lambda: os.open("/etc/passwd", os.O_RDONLY), errno.ENOENT),
        (lambda: Path("/proc/self").stat(), errno.ENOENT),
        (lambda: Path("/new").mkdir(), errno.EROFS),
        (lambda: os.fork(), errno.EAGAIN),
        (lambda: os.setresuid(NOBODY - 1, 0, 0), errno.EPERM),
        (lambda: os.kill(2, signal.SIGTERM), errno.ESRCH),
        (connect, errno.EACCES),
        (lambda: kernel.mount("none", "/", "tmpfs"), errno.EPERM),
        (lambda: kernel.unshare(kernel.CLONE_NEWNS), errno.EPERM),
    ],
    ids=["open", "stat", "mkdir", "fork", "uid 0", "kill", "connect", "mount", "unshare"],
)
def test_what_it_tries_is_refused_even_without_the_filter(
    profile: Profile, attempt: Callable[[], object], expected: int
) -> None:
    said = inside(outcome(attempt), profile)
    if profile is PLAIN and expected == errno.EPERM:  # in its user namespace there is no such uid
        assert said in (str(errno.EPERM), str(errno.EINVAL))
    else:
        assert said == str(expected)


@starters
@pytest.mark.parametrize("supervised", [False, True], ids=["alone", "supervised"])
def test_a_call_that_is_not_allowed_ends_it(profile: Profile, supervised: bool) -> None:  # noqa: FBT001
    own = Profile(uid=profile.uid, gid=profile.gid, user_namespace=profile.user_namespace, supervised=supervised)
    caged = Caged(lambda: os.open("/", os.O_RDONLY), profile=own)
    assert caged.ended() == -(signal.SIGKILL if supervised else signal.SIGSYS)
    assert [violation.name for violation in caged.violations] == (["openat"] if supervised else [])
    assert all(violation.pid == caged.pid for violation in caged.violations)
    assert caged.said() == ""


def test_what_is_shown_can_be_read_and_not_written(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "file").write_text("for drivers")
    profile = Profile(binds=[str(shown)])

    def tell() -> list[object]:
        return [
            os.listdir("/shown"), Path("/shown/file").read_text(), outcome(lambda: os.listdir("/"))(),
            outcome(lambda: Path("/shown/file").write_text("x"))(), outcome(lambda: Path("/shown/new").mkdir())(),
        ]  # fmt: skip

    assert inside(tell, profile) == str([["file"], "for drivers", errno.EACCES, errno.EROFS, errno.EROFS])
    without = ("seccomp", "landlock")
    assert inside(outcome(lambda: Path("/shown/file").chmod(0o600)), profile, without) == str(errno.EROFS)


def test_a_supervised_server_ends_with_its_supervisor() -> None:
    """The supervisor is the middle one of three; the server is handed to us when that ends."""
    reading, writing = os.pipe()

    def supervisor() -> Said:
        operations = plan(Profile(supervised=True), ["seccomp"])
        pid = clone(clone_flags(operations))
        if pid == 0:
            os.dup2(writing, 3)
            enter(operations)
            os.write(3, b"in")
            while True:
                signal.pause()
        os.read(reading, 2)
        return pid

    server = in_child(supervisor)
    os.close(writing)
    assert isinstance(server, int)
    assert os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) == -signal.SIGKILL
    os.close(reading)


def test_the_machine_keeps_its_mounts() -> None:
    """In a namespace whose mounts are shared, as those of most machines: what the cage detaches stays where it was."""

    def child() -> Said:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | 1 << 20)  # MS_SHARED
        before = Path("/proc/self/mountinfo").read_text()
        operations = plan(ROOT)
        pid = clone(clone_flags(operations))
        if pid == 0:
            enter(operations)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return [ended, "shared:" in before, Path("/proc/self/mountinfo").read_text() == before]

    assert in_child(child) == [0, True, True]


def refused(start: Callable[[], object]) -> Said:
    """Return the errno that *start* fails with, and what is noted with it."""
    try:
        start()
    except OSError as error:
        return [error.errno, error.__notes__[-1]]
    return None


def test_nobody_is_let_into_half_a_cage() -> None:
    """Neither a plain user without a user namespace, nor whoever was not cloned into a pid namespace."""

    def plain() -> Said:
        become_nobody()
        return refused(lambda: clone(clone_flags(plan(ROOT))))

    def not_cloned() -> Said:
        return refused(lambda: enter(plan(ROOT, ["descriptors"])))

    assert in_child(plain) == [errno.EPERM, "while calling clone()"]
    said = list(in_child(not_cloned))  # type: ignore[arg-type]  # the child says a list
    assert said == [errno.ESRCH, "while entering the cage: a list of processes of its own, where it is number 1"]


@starters
def test_who_was_executed_enters_by_unshare(profile: Profile) -> None:
    """All walls but one: nobody can put himself into a pid namespace, so that must be left out by name."""
    operations = plan(profile, ["pid", "seccomp", "descriptors"])

    def child() -> Said:
        if profile is PLAIN:
            become_nobody()
        unshare(operations)
        enter(operations)
        return [outcome(lambda: os.listdir("/"))(), os.uname().nodename]

    assert in_child(child) == [errno.EACCES, "fuservice"]
