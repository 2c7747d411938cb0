"""Mounts whose servers systemd has started, in units: from the first connection to nothing left, and how far apart they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fuservice.drivers.ext4 import Ext4
from tests.support.capabilities import REPOSITORY
from tests.systemd.conftest import dropped_in, make_image, server_pid, servers
from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

Mount = Callable[..., str]


def ours(machine: Machine) -> list[str]:
    """Return whatever systemd knows of us, by name."""
    lines = machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend").stdout.splitlines()
    return [line.split()[0] for line in lines if "fuservice" in line]


def test_from_installation_to_nothing_left() -> None:
    with Machine() as machine:
        make_image(machine.root / "srv/image")
        machine.run("mkdir", "/mnt/a")
        before = {"units": ours(machine), "files": machine.run("ls", "/etc/systemd/system").stdout}
        machine.run("fuservice", "units", "install", "ext4")
        assert (
            machine.run("fuservice", "units", "status", "ext4").stdout
            == "ext4: installed in /etc/systemd/system; socket active; 0 servers\n"
        )
        machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4")
        read = machine.run("sha256sum", "/mnt/a/program").stdout.split()[0]
        assert read == hashlib.sha256(Path("/sbin/mkfs.ext4").read_bytes()).hexdigest()
        assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
        (listed,) = json.loads(machine.run("fuservice", "list", "--json").stdout)
        (unit,) = servers(machine, "ext4")
        assert (listed["mount point"], listed["type"]) == ("/mnt/a", "ext4")
        assert listed["pid"] == server_pid(machine, unit)
        assert (listed["unit"], listed["cage"]) == (unit, "systemd")
        assert machine.run("fuservice", "units", "status", "ext4").stdout.endswith("; socket active; 1 server\n")
        machine.run("fuservice", "umount", "/mnt/a")
        assert machine.becomes(lambda: not servers(machine))
        machine.run("systemctl", "stop", "fuservice-ext4.socket")
        assert "(`systemctl enable --now fuservice-ext4.socket')" in machine.run("fuservice", "units", "status").stdout
        machine.run("fuservice", "units", "remove", "ext4")
        assert {"units": ours(machine), "files": machine.run("ls", "/etc/systemd/system").stdout} == before
        assert machine.run("ls", "/run/filesystems", "/run/fuservice/root", "/run/fuservice/mounts").stdout.split("\n\n") == [
            "/run/filesystems:", "/run/fuservice/mounts:", "/run/fuservice/root:\n",
        ]  # fmt: skip


def test_what_is_mounted_outlives_the_removal_of_the_units(mount: Mount, machine: Machine) -> None:
    point = mount()
    machine.run("fuservice", "units", "remove")
    try:
        assert machine.run("cat", f"{point}/words").stdout == "read through systemd\n"
        machine.run("umount", point)
    finally:
        machine.run("fuservice", "units", "install")


def status(machine: Machine, pid: int) -> dict[str, str]:
    """Return /proc/PID/status of a process of *machine*."""
    lines = (machine.root / f"proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_two_instances_are_strangers_to_each_other(mount: Mount, machine: Machine) -> None:
    points = [mount("/mnt/a"), mount("/mnt/b")]
    pids = [server_pid(machine, unit) for unit in servers(machine)]
    assert len(pids) == 2
    uids = {status(machine, pid)["Uid"] for pid in pids}
    assert len(uids) == 2 and not any(words.startswith("0") for words in uids)
    for one, other in (pids, pids[::-1]):
        uid = status(machine, one)["Uid"].split()[0]
        enter = ["nsenter", "-t", str(one), "-m", "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        # Where the server is, with its user, and without the filters that it has besides.
        see = f"import os; print('{other}' in os.listdir('/proc'))"
        assert machine.run(*enter, "/usr/bin/python3", "-c", see).stdout == "False\n"
        signalled = machine.run(*enter, "/usr/bin/python3", "-c", f"import os; os.kill({other}, 0)", check=False)
        assert "PermissionError" in signalled.stderr
    for point in points:
        machine.run("umount", point)


def test_walls_around_a_server(mount: Mount, machine: Machine) -> None:
    point = mount()
    (unit,) = servers(machine)
    pid = server_pid(machine, unit)
    facts = status(machine, pid)
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"], facts["Threads"]) == ("1", "2", str(1 + Ext4.threads))
    seen = machine.run("ls", f"/proc/{pid}/root").stdout.split()
    assert not {"home", "srv", "boot", "mnt", "opt"} & set(seen)
    assert machine.run("env", "-C", f"/proc/{pid}/root", "ls", "etc").stdout.split() == ["ld.so.cache"]
    for space in ("mnt", "net", "ipc", "uts", "user"):
        assert (machine.root / f"proc/{pid}/ns/{space}").readlink() != (machine.root / f"proc/1/ns/{space}").readlink()
    machine.run("umount", point)


def test_the_caller_is_known_behind_the_wall_of_users(mount: Mount, machine: Machine) -> None:
    """allow_root lets in root and whoever has mounted: the unit's server sees no uid but its own."""
    point = mount("/mnt/a", "-o", "allow_root")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert machine.run(*as_nobody, "cat", f"{point}/words", check=False).returncode == 1
    assert machine.run("cat", f"{point}/words").stdout
    machine.run("umount", point)


def test_the_log_of_a_mount_is_that_of_its_server(mount: Mount, machine: Machine) -> None:
    points = [mount("/mnt/a", "-d"), mount("/mnt/b", "-d")]
    machine.run("ls", *points)
    machine.journal()
    logs = [machine.run("fuservice", "log", point).stdout for point in points]
    for log in logs:
        assert "READDIR" in log.upper() and log.count("systemd[1]: Started fuservice-ext4@") == 1
    with dropped_in(machine, "ExecStopPost="):  # which would detach them
        machine.run("systemctl", "kill", "--signal=KILL", *servers(machine))
        assert machine.becomes(lambda: not servers(machine))
    assert "READDIR" in machine.run("fuservice", "log", points[0]).stdout.upper()  # by the name of its type
    for point in points:
        machine.run("umount", point)
    refused = machine.run("fuservice", "log", "/mnt/a", check=False)
    assert refused.returncode == 1 and "nothing is mounted there" in refused.stderr


def test_a_damaged_image_is_one_line_in_the_journal_by_name(machine: Machine) -> None:
    machine.run("sh", "-c", "head -c 65536 /dev/zero >/tmp/zeros; mkdir -p /mnt/a")
    ended = machine.run("fuservicemount", "/tmp/zeros", "/mnt/a", "-t", "ext4", check=False)
    assert ended.returncode == 1
    said = machine.journal("--identifier=fuservice-ext4", "--output=cat").splitlines()
    assert len([line for line in said if "ext4" in line or "magic" in line]) >= 1, said
    assert machine.becomes(lambda: not servers(machine))


@pytest.mark.parametrize("home", ["/home/somebody", Path("/root")], ids=["of a user", "of root"])
def test_a_checkout_in_a_home_that_nobody_else_may_enter(home: str | Path) -> None:
    with Machine() as machine:
        make_image(machine.root / "srv/image")
        machine.run("mkdir", "-p", "-m", "0700", home, "/mnt/a")
        machine.run("cp", "-r", f"{REPOSITORY}/src", f"{REPOSITORY}/scripts", home)
        machine.run("/usr/bin/python3", "-m", "venv", "--without-pip", f"{home}/venv")
        code = f"import sys; sys.path.insert(0, '{home}/src'); from fuservice.cli.main import main; sys.exit(main())"
        packages = machine.root / f"{home}"[1:] / "venv/lib"
        (place,) = packages.glob("python3*/site-packages")
        (place / "fuservice.pth").write_text(f"{home}/src\n")
        machine.run(f"{home}/venv/bin/python3", "-c", code, "units", "install", "ext4")
        machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4")
        assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
        (unit,) = servers(machine)
        seen = machine.run("env", "-C", f"/proc/{server_pid(machine, unit)}/root", "ls", f".{home}")
        assert seen.stdout.split() == ["src", "venv"]
        machine.run("umount", "/mnt/a")
