"""What the broker is and may: CAP_SYS_ADMIN, and system calls that mount in one form only; and whom its policy lets mount."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuservice.broker import judge, walls, wire
from fuservice.errors import PolicyError, RefusalError
from fuservice.linux import mountapi, peers, rawsyscall, statmount
from tests.broker.yard import ALICE, BOB, CAROL, SAFE, Yard, yard
from tests.support import kernel
from tests.support.capabilities import AS_NOBODY, PROGRAMS, REPOSITORY
from tests.support.processes import status
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.needs("root", "fuse"), pytest.mark.timeout(120)]

ONLY_ADMIN = f"{1 << 21:016x}"


def test_cap_sys_admin_and_nothing_else(broker: Yard) -> None:
    facts = status(broker.program.pid)
    print(
        {
            name: facts[name]
            for name in (
                "Uid",
                "Gid",
                "Groups",
                "CapEff",
                "CapPrm",
                "CapInh",
                "CapBnd",
                "CapAmb",
                "NoNewPrivs",
                "Seccomp",
            )
        }
    )
    assert facts["CapEff"] == facts["CapPrm"] == ONLY_ADMIN
    assert {facts[name] for name in ("CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"], facts["Groups"], facts["Threads"]) == ("1", "2", "", "1")
    (uid,) = set(facts["Uid"].split())
    assert int(uid) >= 2_100_000_000 and facts["Gid"].split() == [uid] * 4


def test_nobody_looks_into_it(broker: Yard) -> None:
    assert Path(f"/proc/{broker.program.pid}/mem").stat().st_uid == 0


def test_it_has_open_what_it_listens_on_and_nothing_else(broker: Yard) -> None:
    assert broker.descriptors.count("socket") == 1
    assert set(broker.descriptors) == {"socket", "pipe", "/dev/null", os.fspath(broker.program.log)}


def test_its_socket_is_root_s(broker: Yard) -> None:
    status_ = Path(broker.socket).stat()
    assert (status_.st_uid, stat.S_IMODE(status_.st_mode), stat.S_ISSOCK(status_.st_mode)) == (0, 0o666, True)


BUFFER = b"x\0" + bytes(62)
#: What an attacker who has taken a process over would try next.
FORBIDDEN: dict[str, Callable[[], object]] = {
    "open a file for writing": lambda: rawsyscall.call("openat", -100, b"/dev/null", os.O_WRONLY, 0),
    "open it for both": lambda: rawsyscall.call("openat", -100, b"/dev/null", os.O_RDWR, 0),
    "create one": lambda: rawsyscall.call("openat", -100, b"/tmp/x", os.O_RDONLY | os.O_CREAT, 0),
    "truncate one": lambda: rawsyscall.call("openat", -100, b"/dev/null", os.O_RDONLY | os.O_TRUNC, 0),
    "openat2": lambda: rawsyscall.call("openat2", -100, b"/dev/null", BUFFER, 24),
    "mount": lambda: rawsyscall.call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "umount at once": lambda: rawsyscall.call("umount2", b"/nonexistent", 0),
    "umount by force": lambda: rawsyscall.call("umount2", b"/nonexistent", mountapi.MNT_FORCE),
    "a mount without nosuid": lambda: rawsyscall.call("fsmount", -1, 1, mountapi.MOUNT_ATTR_NODEV),
    "a mount without nodev": lambda: rawsyscall.call("fsmount", -1, 1, mountapi.MOUNT_ATTR_NOSUID),
    "a mount with ids mapped": lambda: rawsyscall.call(
        "fsmount", -1, 1, mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV | 1 << 20
    ),
    "move a mount by name": lambda: rawsyscall.call("move_mount", -100, b"/mnt", -100, b"/tmp", 0),
    "set a descriptor": lambda: rawsyscall.call("fsconfig", -1, 5, b"fd", None, 0),
    "set a path": lambda: rawsyscall.call("fsconfig", -1, 3, b"source", b"/", -100),
    "reconfigure": lambda: rawsyscall.call("fsconfig", -1, 7, None, None, 0),
    "open_tree": lambda: rawsyscall.call("open_tree", -100, b"/", 1),
    "fspick": lambda: rawsyscall.call("fspick", -100, b"/", 0),
    "mount_setattr": lambda: rawsyscall.call("mount_setattr", -100, b"/", 0, BUFFER, 32),
    "pivot_root": lambda: rawsyscall.call("pivot_root", b".", b"."),
    "setns": lambda: rawsyscall.call("setns", 0, 0),
    "unshare": lambda: rawsyscall.call("unshare", 0x10000000),
    "a namespace for a child": lambda: rawsyscall.call("clone", 0x10000011, None, None, None, 0),
    "clone3": lambda: rawsyscall.call("clone3", BUFFER, 64),
    "execve": lambda: rawsyscall.call("execve", b"/bin/true", None, None),
    "ptrace": lambda: rawsyscall.call("ptrace", 0, 0, None, None),
    "read another's memory": lambda: rawsyscall.call("process_vm_readv", 1, None, 0, None, 0, 0),
    "take another's descriptor": lambda: rawsyscall.call("pidfd_getfd", -1, 0, 0),
    "kill": lambda: rawsyscall.call("kill", 1, 0),
    "become root": lambda: rawsyscall.call("setresuid", 0, 0, 0),
    "change groups": lambda: rawsyscall.call("setgroups", 0, None),
    "give itself capabilities": lambda: rawsyscall.call("capset", BUFFER, BUFFER),
    "a socket": lambda: rawsyscall.call("socket", 1, 1, 0),
    "chown": lambda: rawsyscall.call("fchownat", -100, b"/tmp/x", 0, 0, 0),
    "chmod": lambda: rawsyscall.call("fchmodat", -100, b"/tmp/x", 0o4755),
    "unlink": lambda: rawsyscall.call("unlinkat", -100, b"/tmp/x", 0),
    "mknod": lambda: rawsyscall.call("mknodat", -100, b"/tmp/x", 0o20666, 0),
    "sethostname": lambda: rawsyscall.call("sethostname", b"x", 1),
    "swapon": lambda: rawsyscall.call("swapon", b"/tmp/x", 0),
    "bpf": lambda: rawsyscall.call("bpf", 0, BUFFER, 64),
    "io_uring": lambda: rawsyscall.call("io_uring_setup", 1, BUFFER),
    "keyctl": lambda: rawsyscall.call("keyctl", 0, 0, 0, 0, 0),
    "quotactl": lambda: rawsyscall.call("quotactl", 0, b"x", 0, None),
    "executable memory": lambda: rawsyscall.call("mmap", None, 4096, 7, 0x22, -1, 0),
    "an ioctl": lambda: rawsyscall.call("ioctl", 0, 0x5412, BUFFER),
    "fcntl": lambda: rawsyscall.call("fcntl", 0, 4, 0),
}


def under(filter_: walls.Filter, call: Callable[[], object]) -> int:
    """Make *call* in a process under *filter_*, with all of root's rights; return its errno, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            filter_.execute()
            call()
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_taken_over_process_may_not_ask_of_the_kernel(what: str) -> None:
    """No capability refuses here: that is the filter, alone."""
    caller, listener = walls.Filter(walls.CALLER, fatal=True), walls.Filter(walls.LISTENER, fatal=False)
    assert under(caller, FORBIDDEN[what]) == -signal.SIGSYS
    assert under(listener, FORBIDDEN[what]) == errno.EPERM


@pytest.mark.needs("nobody-python")
def test_without_the_right_to_mount_it_does_not_begin() -> None:
    with pytest.raises(PolicyError, match="CAP_SYS_ADMIN"):
        walls.listener(0, root=False)
    command = [*AS_NOBODY, "env", "-C", os.fspath(REPOSITORY), "-i"]
    done = subprocess.run(
        [*command, PROGRAMS / "python", "-I", "-m", "fuservice.cli.broker"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        "fuserviced: the broker has no CAP_SYS_ADMIN, without which nobody mounts: start it as root\n",
    )


@pytest.mark.needs("nobody-python")
def test_a_user_with_that_right_alone_may_start_it() -> None:
    steps = "from fuservice.broker import walls; from fuservice.cage.plan import enter; enter(walls.listener(1 << 21, root=False))"
    show = "print([line.split()[1] for line in open('/proc/self/status') if line[:6] in ('CapEff', 'CapPrm', 'CapInh', 'CapAmb')])"
    words = [*AS_NOBODY, "--inh-caps=-all,+sys_admin", "--ambient-caps=+sys_admin"]
    done = subprocess.run(
        [*words, "env", "-C", REPOSITORY, PROGRAMS / "python", "-I", "-c", f"{steps}; {show}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"{['0' * 16, ONLY_ADMIN, ONLY_ADMIN, '0' * 16]}\n", done.stderr


def test_it_says_what_it_gives_up() -> None:
    done = subprocess.run(
        [PROGRAMS / "python", "-m", "fuservice.cli.broker", "--dry-run"], capture_output=True, text=True, check=True
    )
    assert "drop every capability but CAP_SYS_ADMIN\n" in done.stdout and "move_mount" in done.stdout


# ---- kernels that tell less ----


def test_before_unique_ids_the_id_is_mountinfo_s(broker: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    point = broker.make()
    assert broker.mount(broker.pin(point)).error == 0
    (mount,) = broker.here()

    def absent(_unique: int) -> int:
        raise OSError(errno.ENOSYS, "no statmount")

    monkeypatch.setattr(statmount, "mount_id", absent)
    judge.check_unmount(broker.pin(point), mount.mount_id, ALICE)
    for wanted, uid in ((0, ALICE), (mount.mount_id + 1, ALICE), (mount.mount_id, BOB)):
        with pytest.raises(RefusalError):
            judge.check_unmount(broker.pin(point), wanted, uid)


def test_before_pidfds_of_peers_nobody_is_asked_for(broker: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SO_PEERPIDFD", 9_999)  # ENOPROTOOPT, as from a kernel that does not know it
    with broker.connect() as connection:
        assert peers.process(connection.fileno()) is None


# ---- policy and limits, with a broker that has one ----

POLICY = f"""
deny user {BOB}
allow user {ALICE} mounts=2
allow group 777 options=rw,allow_other
allow user {CAROL} options=
"""


def asked(broker: Yard, uid: int, *, flags: int = SAFE, groups: tuple[int, ...] = (), **words: object) -> str:
    """Ask for a mount on a directory of one's own; return the broker's sentence, "" for a mount."""
    point = broker.make(f"p{len(list(broker.place.iterdir()))}", owner=uid)
    pairs: list[tuple[str, str | None]] = [("allow_other", None)] if words.get("allow_other") else []
    request = wire.Mount("src", "toy", flags, pairs)
    return broker.ask(request.encode(), [broker.device(), broker.pin(point)], uid, groups).sentence


def test_the_policy_says_who_mounts_what(tmp_path: Path) -> None:
    with yard(tmp_path / "log", POLICY) as broker:
        (broker.etc / "fuse.conf").write_text("user_allow_other\n")
        try:
            assert "denies you mounts in line 2" in asked(broker, BOB)
            assert "has no rule for you (uid 5)" in asked(broker, 5)
            assert "has no rule for you (uid 0)" in asked(broker, 0)
            assert asked(broker, CAROL) == ""
            assert (
                asked(broker, CAROL, flags=SAFE & ~1)
                == "the broker's policy, line 5, gives you no rw: mount with -o ro"
            )
            assert "no exec: mount with -o noexec" in asked(broker, CAROL, flags=SAFE & ~8)
            assert "no symfollow: mount with -o nosymfollow" in asked(broker, CAROL, flags=SAFE & ~256)
            assert "gives you no allow_other" in asked(broker, CAROL, allow_other=True)
            assert asked(broker, 5, groups=(8, 777), flags=SAFE & ~1, allow_other=True) == ""
            assert [asked(broker, ALICE) for _ in range(2)] == ["", ""]
            assert "you have 2 FUSE mounts, and the broker's policy gives you 2" in asked(broker, ALICE)
            mine = next(mount.point for mount in broker.here() if f"user_id={ALICE}," in mount.super_options)
            kernel.umount2(mine, kernel.MNT_DETACH)
            assert asked(broker, ALICE) == ""
        finally:
            broker.settle()


def test_requests_at_once_do_not_get_more_than_one_after_the_other(broker: Yard) -> None:
    (broker.etc / "fuse.conf").write_text(f"mount_max = {fuse_mounts() + 3}\n")
    good = wire.Mount("src", "toy", SAFE, []).encode()
    connections = [broker.connect() for _ in range(10)]
    for number, connection in enumerate(connections):
        connection.send_with_fds(good, [broker.device(), broker.pin(broker.make(f"p{number}"))])
    answers = []
    for connection in connections:
        answers.append(wire.answer(connection.receive(wire.LARGEST)))
        connection.close()
    errors = [answer.error for answer in answers if isinstance(answer, wire.Answer)]
    assert sorted(errors) == [0] * 3 + [errno.EUSERS] * 7
    assert len(broker.here()) == 3


def fuse_mounts() -> int:
    """Return how many FUSE filesystems there are here."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(
        line.partition(" - ")[2].startswith("fuse") and not line.partition(" - ")[2].startswith("fusectl")
        for line in lines
    )


@pytest.mark.parametrize("policy", ["allow everybody please\n", "allow user nobody-has-this-name\n"])
def test_a_policy_with_an_error_refuses_everybody(tmp_path: Path, policy: str) -> None:
    with yard(tmp_path / "log", policy) as broker:
        try:
            for uid in (ALICE, 0):
                assert (
                    asked(broker, uid)
                    == "the broker's policy has an error, so it mounts for nobody: its log says where"
                )
        finally:
            broker.settle()
        assert (
            "/etc/fuservice/broker.conf:1: " in broker.program.said() and "refuses everybody" in broker.program.said()
        )


def test_it_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with yard(tmp_path / "log") as broker:
        os.kill(broker.program.pid, signal.SIGTERM)
        wait_until(broker.program.ended, "its end")
        assert broker.program.stop() == 0


def test_a_second_one_does_not_take_the_socket_from_the_first(broker: Yard) -> None:
    command: list[str | Path] = [PROGRAMS / "python", "-I", "-m", "fuservice.cli.broker", "--socket", broker.socket]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1 and done.stderr.endswith("somebody listens there already\n")
    assert asked(broker, ALICE) == ""


def test_the_filter_stays_small() -> None:
    print(
        f"{len(walls.CALLER)} system calls for a caller's process, {len(walls.LISTENER)} for the one that listens; python {sys.version[:4]}"
    )
    assert len(walls.CALLER) <= 45 and len(walls.LISTENER) <= 55
