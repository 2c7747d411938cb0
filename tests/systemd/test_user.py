"""A user's own manager: units that the user installs, and servers in a cage that is built without anybody's rights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4 import Ext4
from tests.support.capabilities import REPOSITORY
from tests.systemd.conftest import mounts
from tests.systemd.test_mounts import status

if TYPE_CHECKING:
    from tests.systemd.machine import Done, Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python", "userns")

UID = 4242
OWN = f"/run/user/{UID}"
#: What alone the helper cannot do without rights where nothing lends them to it: to attach a mount.
MAY_MOUNT = ("--inh-caps=+sys_admin", "--ambient-caps=+sys_admin")

As = Callable[..., "Done"]


@pytest.fixture(scope="module")
def _alice(shared_machine: Machine) -> Iterator[None]:
    shared_machine.run("useradd", "--create-home", "--uid", str(UID), "alice")
    shared_machine.run("cp", "/srv/image", "/home/alice/image")
    shared_machine.run("mkdir", "-p", "/home/alice/mnt")
    shared_machine.run("chown", "-R", "alice:", "/home/alice")
    shared_machine.run("systemctl", "start", f"user@{UID}.service")
    yield
    shared_machine.run("systemctl", "stop", f"user@{UID}.service")
    shared_machine.run("userdel", "--remove", "alice", check=False)


@pytest.fixture
def alice(_alice: None, machine: Machine) -> As:
    """Give a function that runs a command as a plain user whose manager runs."""

    def run(*command: str, more: tuple[str, ...] = (), check: bool = True) -> Done:
        become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *more]
        variables = {"XDG_RUNTIME_DIR": OWN, "HOME": "/home/alice"}
        return machine.run(*become, *command, check=check, environment=variables)

    return run


@pytest.fixture
def installed(alice: As, machine: Machine) -> Iterator[As]:
    """The same, with units installed for ext4."""
    alice("fuservice", "units", "install", "--user", "ext4")
    yield alice
    alice("fuservice", "units", "remove", "--user")
    assert machine.becomes(lambda: not known(alice)), known(alice)


def known(alice: As) -> list[str]:
    """Return what the user's manager knows of us: mounts of the system it sees, too."""
    lines = alice("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend").stdout.splitlines()
    return [line.split()[0] for line in lines if line.startswith(("fuservice", "app-fuservice"))]


def servers(alice: As) -> list[str]:
    """Return the user's servers' units."""
    return [name for name in known(alice) if name.endswith(".service") and not name.startswith("fuservice-tidy@")]


def helper(alice: As, *words: str, more: tuple[str, ...] = MAY_MOUNT) -> Done:
    """Have the user mount the image."""
    return alice("fuservicemount", "/home/alice/image", "/home/alice/mnt", "-t", "ext4", *words, more=more, check=False)


def test_from_installation_to_nothing_left(alice: As, machine: Machine) -> None:
    assert alice("fuservice", "units", "status", "--user", "ext4").stdout == "ext4: not installed\n"
    assert not known(alice)
    alice("fuservice", "units", "install", "--user", "ext4")
    assert (
        alice("fuservice", "units", "status", "--user", "ext4").stdout
        == "ext4: installed in /home/alice/.config/systemd/user; socket active; 0 servers\n"
    )
    assert (
        machine.run("stat", "-c", "%a %u", f"{OWN}/filesystems", f"{OWN}/filesystems/ext4").stdout
        == f"700 {UID}\n600 {UID}\n"
    )
    assert alice("fuservicemount", "-t", "ext4", "--check").returncode == 0
    assert helper(alice).stderr == ""
    try:
        assert (
            machine.run("cat", "/home/alice/mnt/words", check=False).returncode == 1
        )  # the user's, and not even root's
        assert alice("cat", "/home/alice/mnt/words").stdout == "read through systemd\n"
        assert alice("fuservice", "units", "status", "--user", "ext4").stdout.endswith("; 1 server\n")
        (row,) = json.loads(alice("fuservice", "list", "--all", "--json").stdout)
        assert (row["mount point"], row["cage"], row["uid"]) == ("/home/alice/mnt", "whole", UID)
        assert [row["unit"]] == servers(alice)
        log = alice(
            "fuservice", "log", "/home/alice/mnt", check=False
        )  # a machine of one journal, which is the system's
        assert "fuservice:" not in log.stderr
        said = machine.journal(f"USER_UNIT={servers(alice)[0]}")
        assert said.count("Started fuservice-ext4@") == 1
    finally:
        machine.run("umount", "/home/alice/mnt")
    assert machine.becomes(lambda: not servers(alice)), servers(alice)
    alice("fuservice", "units", "remove", "--user")
    assert not known(alice) and not mounts(machine)
    left = machine.run(
        "find", f"{OWN}/filesystems", f"{OWN}/fuservice-servers", "/home/alice/.config", "-not", "-type", "d"
    ).stdout
    assert left == ""


def test_the_cage_is_whole(installed: As, machine: Machine) -> None:
    """All that the kernel shows of the walls, on the server and on who looks after it, beside the user's manager."""
    assert helper(installed).returncode == 0
    (unit,) = servers(installed)
    supervisor = int(installed("systemctl", "--user", "show", "--property=MainPID", "--value", unit).stdout)
    server = int((machine.root / f"proc/{supervisor}/task/{supervisor}/children").read_text())
    manager = int(machine.run("systemctl", "show", "--property=MainPID", "--value", f"user@{UID}.service").stdout)
    for pid in (supervisor, server):
        facts = status(machine, pid)
        assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert facts["NoNewPrivs"] == "1" and facts["Uid"].split() == [str(UID)] * 4
        assert not {"home", "srv", "etc", "root"} & set(machine.run("ls", f"/proc/{pid}/root").stdout.split()) - {"etc"}
        for space in ("user", "mnt", "net", "ipc"):
            assert _space(machine, pid, space) != _space(machine, manager, space)
    facts = status(machine, server)
    assert facts["Seccomp"] == "2" and facts["NSpid"].split()[-1] == "1" and facts["Threads"] == str(1 + Ext4.threads)
    assert (machine.root / f"proc/{server}/mountinfo").read_text().count("\n") == 1
    assert machine.run("ls", "-A", f"/proc/{server}/root").stdout == ""
    for space in ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid"):
        assert _space(machine, server, space) != _space(machine, supervisor, space)
    machine.run("umount", "/home/alice/mnt")
    assert machine.becomes(lambda: not servers(installed))


def _space(machine: Machine, pid: int, name: str) -> str:
    return str((machine.root / f"proc/{pid}/ns/{name}").readlink())


@pytest.mark.needs("fusermount3")
@pytest.mark.parametrize("words", [(), ("--transient",)], ids=["who listens", "for this mount alone"])
def test_nobody_needs_a_right_for_it(installed: As, machine: Machine, words: tuple[str, ...]) -> None:
    point = installed("fuservice", "mount", *words, "/home/alice/image").stdout.strip()
    assert point == f"{OWN}/fuservice/image" == mounts(machine)[0]
    assert installed("cat", f"{point}/words").stdout == "read through systemd\n"
    (unit,) = servers(installed)
    assert ("@" in unit) == (not words)
    assert installed("fuservice", "list").stdout.splitlines()[1].split()[1] == point
    installed("fuservice", "umount", "/home/alice/image")
    assert machine.becomes(lambda: not servers(installed)) and not mounts(machine)


@pytest.mark.needs("fusermount3")
def test_a_program_in_the_users_home_is_all_that_shows_of_it(alice: As, machine: Machine) -> None:
    home = machine.root / "home/alice"
    machine.run("chmod", "0700", "/home/alice")
    machine.run("cp", "-r", f"{REPOSITORY}/src", "/home/alice/src")
    machine.run("/usr/bin/python3", "-m", "venv", "--without-pip", "/home/alice/venv")
    (packages,) = (home / "venv/lib").glob("python3*/site-packages")
    (packages / "fuservice.pth").write_text("/home/alice/src\n")
    fuservice = ["/home/alice/venv/bin/python", "-m", "fuservice.cli.main"]
    alice(*fuservice, "units", "install", "--user", "ext4")
    alice(*fuservice, "mount", "/home/alice/image")
    try:
        (unit,) = servers(alice)
        pid = alice("systemctl", "--user", "show", "--property=MainPID", "--value", unit).stdout.strip()
        assert machine.run("env", "-C", f"/proc/{pid}/root", "ls", "-A", "home/alice").stdout.split() == ["src", "venv"]
    finally:
        alice(*fuservice, "umount", "/home/alice/image")
        alice(*fuservice, "units", "remove", "--user")


SAMPLE = """
from fuservice.cli.prove import _unit
from fuservice.prove.attempts import ATTEMPTS
from fuservice.prove.proof import prove
with _unit("fuservice-ext4@.service") as start:
    for verdict in prove(start, ATTEMPTS[::8]):
        print("contained" if verdict.contained else "OUT", verdict.word, verdict.attempt.name, sep="\t")
"""


def test_of_all_attempts_every_eighth_stays_in_a_users_unit(installed: As, machine: Machine) -> None:
    """All of them: `fuservice prove --unit`, as that user; each takes a start of Python."""
    lines = [line.split("\t") for line in installed("python", "-Ic", SAMPLE).stdout.splitlines()]
    words = [word for _, word, _ in lines]
    print(len(lines), {word: words.count(word) for word in sorted(set(words))})
    assert len(lines) > 10 and not [name for where, _, name in lines if where != "contained"]
    assert words.count("killed") > 5
    assert not [name for name in known(installed) if "prove" in name]
    assert machine.run("find", OWN, "-name", "*prove*").stdout == ""


def test_the_systems_units_are_not_a_users_to_prove(alice: As, machine: Machine) -> None:
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    done = machine.run(*become, "fuservice", "prove", "--unit", "fuservice-ext4@.service", check=False)
    assert done.returncode == 1 and "the system's is root's" in done.stderr


def test_roots_helper_asks_the_system(installed: As, machine: Machine) -> None:
    machine.run("mkdir", "-p", "/mnt/a")
    machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4", environment={"XDG_RUNTIME_DIR": OWN})
    assert not servers(installed)
    machine.run("umount", "/mnt/a")


def test_a_wall_that_cannot_be_built_stops_the_start(installed: As, machine: Machine) -> None:
    """No namespaces for the server: nothing falls back."""
    drop_in = "/home/alice/.config/systemd/user/fuservice-ext4@.service.d"
    installed("mkdir", drop_in)
    machine.run("tee", f"{drop_in}/less.conf", text="[Service]\nRestrictNamespaces=yes\n")
    installed("systemctl", "--user", "daemon-reload")
    try:
        assert helper(installed).returncode == 1 and not mounts(machine)
        assert "while entering the cage" in machine.journal("-t", "fuservice-ext4") or "clone" in machine.journal(
            "-t", "fuservice-ext4"
        )
    finally:
        machine.run("rm", f"{drop_in}/less.conf")
        machine.run("rmdir", drop_in)
        installed("systemctl", "--user", "daemon-reload")
    assert machine.becomes(lambda: not servers(installed))


@pytest.mark.needs("fusermount3")
def test_servers_end_with_the_users_manager_even_one_that_hangs(installed: As, machine: Machine) -> None:
    own = installed("fuservice", "mount", "/home/alice/image").stdout.strip()
    installed("fuservice", "mount", "/home/alice/image", "/home/alice/mnt")
    for pid in installed("pgrep", "-x", "ext4").stdout.split():
        machine.run("kill", "-STOP", pid)
    machine.run("systemctl", "stop", f"user@{UID}.service")
    try:
        assert machine.run("pgrep", "-u", "alice", check=False).stdout == ""
        # With the session's directory, which newer versions keep for ten seconds (UserStopDelaySec=, logind.conf(5)).
        assert machine.becomes(lambda: own not in mounts(machine), 30)
        assert machine.run("ls", "/home/alice/mnt", check=False).returncode
        machine.run("umount", "/home/alice/mnt")
    finally:
        machine.run("systemctl", "start", f"user@{UID}.service")


def test_status_knows_what_a_package_has_brought(alice: As, machine: Machine) -> None:
    machine.run("fuservice", "units", "install", "--user", "--prefix", "/usr", "ext4")
    try:
        alice("systemctl", "--user", "daemon-reload")
        said = alice("fuservice", "units", "status", "--user", "ext4").stdout
        assert said.startswith(
            "ext4: installed in /usr/lib/systemd/user; socket inactive (`systemctl --user enable --now "
        )
    finally:
        machine.run("fuservice", "units", "remove", "--user", "--prefix", "/usr", "ext4")
        alice("systemctl", "--user", "daemon-reload")


def test_without_a_manager_nothing_is_installed(alice: As, machine: Machine) -> None:
    become = [
        "setpriv",
        f"--reuid={UID}",
        f"--regid={UID}",
        "--clear-groups",
        "fuservice",
        "units",
        "install",
        "--user",
    ]
    ended = machine.run(*become, check=False, environment={"HOME": "/home/alice"})
    assert ended.returncode == 1 and "no systemd of this user's runs" in ended.stderr
    root = machine.run("fuservice", "units", "install", "--user", check=False)
    assert root.returncode == 64 and "root's mounts are served by units of the system" in root.stderr
