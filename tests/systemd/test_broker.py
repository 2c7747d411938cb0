"""The broker in its unit: a fresh user of a machine without set-user-ID programs mounts, reads all, lists and unmounts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.broker import policy
from tests.support.capabilities import PROGRAMS
from tests.systemd.conftest import make_image
from tests.systemd.machine import Machine
from tests.systemd.test_mounts import status

if TYPE_CHECKING:
    from tests.systemd.machine import Done

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python", "userns")

UIDS = {"fresh": 4343, "other": 4344}
As = Callable[..., "Done"]
SERVICE = "fuserviced.service"


@pytest.fixture(scope="module")
def _machine() -> Iterator[Machine]:
    with Machine() as machine:
        make_image(machine.root / "srv/image")
        machine.run("find", "/usr/bin", "-perm", "-4000", "-exec", "chmod", "u-s", "{}", "+")
        for name, uid in UIDS.items():
            machine.run("useradd", "--create-home", "--uid", str(uid), name)
            machine.run("install", "-d", "-o", name, "-m", "0700", f"/run/user/{uid}")
        machine.run("fuservice", "units", "install", "--broker")
        yield machine
        machine.run("fuservice", "units", "remove", "--broker")
        assert machine.run("ls", "/run/fuservice").stdout == ""
        assert SERVICE not in machine.run("systemctl", "list-units", "--all", "--plain").stdout


@pytest.fixture
def as_user(_machine: Machine) -> Iterator[As]:
    """Give a function that runs a command as one of the users; at the end nothing may be mounted."""

    def run(name: str, *command: str, check: bool = True) -> Done:
        become = [
            "setpriv",
            f"--reuid={UIDS[name]}",
            f"--regid={UIDS[name]}",
            "--init-groups",
            "env",
            "-C",
            f"/home/{name}",
        ]
        variables = {"XDG_RUNTIME_DIR": f"/run/user/{UIDS[name]}", "HOME": f"/home/{name}"}
        return _machine.run(*become, *command, check=check, environment=variables)

    yield run
    left = [line.split()[1] for line in _machine.run("cat", "/proc/mounts").stdout.splitlines() if " fuse." in line]
    for point in left:
        _machine.run("umount", "-l", point)
    assert not left


@pytest.fixture
def machine(_machine: Machine) -> Machine:
    """Give the machine."""
    return _machine


def main_pid(machine: Machine) -> int:
    """Return the process of the broker; 0 where it does not run."""
    return int(machine.run("systemctl", "show", "--property=MainPID", "--value", SERVICE).stdout)


def test_a_fresh_user_mounts_reads_lists_and_unmounts(as_user: As, machine: Machine) -> None:
    said = as_user("fresh", "fuservice", "mount", "-v", "/srv/image")
    point = said.stdout.strip()
    assert point == "/run/user/4343/fuservice/image" and "the back end broker attaches the mount" in said.stderr
    read = as_user("fresh", "sha256sum", f"{point}/program").stdout.split()[0]
    assert read == hashlib.sha256(Path("/sbin/mkfs.ext4").read_bytes()).hexdigest()
    assert as_user("fresh", "cat", f"{point}/words").stdout == "read through systemd\n"
    assert point in as_user("fresh", "fuservice", "list").stdout
    (line,) = [line for line in machine.run("cat", "/proc/mounts").stdout.splitlines() if " fuse." in line]
    assert " ro,nosuid,nodev,noexec,relatime,nosymfollow,user_id=4343,group_id=4343 " in line
    assert as_user("other", "ls", point, check=False).returncode != 0
    as_user("fresh", "fuservice", "umount", point)
    assert machine.run("ls", "/run/user/4343/fuservice").stdout == ""
    assert machine.becomes(lambda: as_user("fresh", "fuservice", "list").stdout == "nothing is mounted\n")
    log = machine.journal("-t", "fuserviced", "-o", "cat")
    assert "uid 4343" in log and "mounted fuse.ext4 (nosuid,nodev)" in log and "unmounted its mount" in log


def test_its_rights_and_where_it_is(as_user: As, machine: Machine) -> None:
    as_user("fresh", "python3", "-c", CONNECT)
    pid = main_pid(machine)
    facts = status(machine, pid)
    print({name: facts[name] for name in ("Uid", "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")})
    assert facts["CapEff"] == facts["CapPrm"] == f"{1 << 21:016x}"
    assert {facts[name] for name in ("CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"], facts["Threads"]) == ("1", "2", "1")
    assert int(facts["Uid"].split()[0]) > 2_100_000_000
    spaces = [(machine.root / f"proc/{number}/ns/mnt").readlink() for number in (1, pid)]
    assert spaces[0] == spaces[1]
    verdict = machine.run("systemd-analyze", "security", "--no-pager", SERVICE).stdout.splitlines()[-1]
    print(verdict)
    assert "Overall exposure level" in verdict


CONNECT = """
import socket
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect("/run/fuservice/broker")
connection.send(b"hello")
print(connection.recv(4096)[16:].decode())
"""


def test_a_sandbox_of_the_user_s_is_told_that_its_mounts_are_its_own(as_user: As, machine: Machine) -> None:
    unit = ["systemd-run", "--quiet", "--wait", "--pipe", "--uid=fresh", "--property=PrivateMounts=yes"]
    script = "mkdir /home/fresh/mnt && fuservice mount --via=broker /srv/image /home/fresh/mnt"
    variables = [f"--setenv=PATH={PROGRAMS}:/usr/bin:/bin", "--setenv=HOME=/home/fresh"]
    done = machine.run(*unit, *variables, "sh", "-c", script, check=False)
    assert done.returncode != 0
    assert "not in the broker's mount namespace: a container's or sandbox's mounts are its own" in done.stderr
    assert as_user("fresh", "ls", "/home/fresh/mnt").stdout == ""
    as_user("fresh", "rmdir", "/home/fresh/mnt")


def test_a_new_policy_holds_from_the_next_caller_on(as_user: As, machine: Machine) -> None:
    mount = ("fuservice", "mount", "--via=broker", "/srv/image")
    point = as_user("fresh", *mount).stdout.strip()
    before = main_pid(machine)
    try:
        machine.run("mkdir", "-p", "/etc/fuservice")
        machine.run("tee", policy.PATH, text="deny user fresh\nallow everybody mounts=1\n")
        refused = as_user("fresh", *mount, "--name", "second", check=False)
        assert refused.returncode == 1 and "denies you mounts in line 1" in refused.stderr
        assert main_pid(machine) not in (0, before)
        as_user("fresh", "fuservice", "umount", point)
        other = as_user("other", *mount).stdout.strip()
        refused = as_user("other", *mount, "--name", "second", check=False)
        assert "you have 1 FUSE mounts, and the broker's policy gives you 1" in refused.stderr
        machine.run("tee", policy.PATH, text="allow everybody else\n")
        refused = as_user("other", *mount, "--name", "second", check=False)
        assert "has an error, so it mounts for nobody" in refused.stderr
        assert "/etc/fuservice/broker.conf:1: `else': expected" in machine.journal("-t", "fuserviced", "-o", "cat")
    finally:
        as_user("other", "fuservice", "umount", other)
        machine.run("rm", "-f", policy.PATH)


def test_a_broker_that_was_killed_is_there_for_the_next_caller(as_user: As, machine: Machine) -> None:
    as_user("fresh", "python3", "-c", CONNECT)
    before = main_pid(machine)
    machine.run("systemctl", "kill", "--signal=KILL", SERVICE)
    assert machine.becomes(lambda: main_pid(machine) != before)
    assert "malformed: a request begins with" in as_user("fresh", "python3", "-c", CONNECT).stdout
    assert main_pid(machine) not in (0, before)
