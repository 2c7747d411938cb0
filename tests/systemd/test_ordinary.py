"""An ordinary user with a manager of their own, as after a login: mount, read all, list, unmount, and nothing is left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import loop_mounted
from tests.systemd.conftest import mounts
from tests.systemd.test_user import OWN, UID, As, _alice, alice, installed, servers  # noqa: F401  # some are fixtures

if TYPE_CHECKING:
    from tests.systemd.machine import Done, Machine

pytestmark = pytest.mark.needs(
    "systemd", "fuse", "loop", "ext4", "e2fsprogs", "installed", "nobody-python", "userns", "fusermount3"
)

POINT = f"{OWN}/fuservice/image"
SUMS = 'cd "$0" && find . -type f -exec sha256sum {} + | sort && find . -printf "%y %p %s %m %T@\\n" | sort'


@pytest.fixture
def login(alice: As) -> Callable[..., Done]:  # noqa: F811
    """Give a function that runs a command below the user's manager; what it leaves behind lives on, as after a shell's."""

    def run(*command: str, check: bool = True) -> Done:
        words = ("systemd-run", "--user", "--wait", "--pipe", "--quiet", "--collect", "-p", "KillMode=process")
        path = "--setenv=PATH=" + alice("sh", "-c", "echo $PATH").stdout.strip()
        return alice(*words, path, "--working-directory=/home/alice", *command, check=check)

    return run


@pytest.fixture
def nothing_of_alices(machine: Machine) -> Iterator[None]:
    """Fail if a test leaves a process beside the user's manager, or a directory that was made."""
    yield
    assert machine.becomes(lambda: not processes(machine)), processes(machine)
    assert machine.run("find", f"{OWN}/fuservice", "-mindepth", "1", check=False).stdout == ""
    assert not mounts(machine)


def processes(machine: Machine) -> list[str]:
    """Return the names of the user's processes, but for the manager's own."""
    own = {"systemd", "(sd-pam)", "dbus-daemon"}
    names = machine.run("ps", "-U", str(UID), "-o", "comm=", check=False).stdout.split()
    return [name for name in names if name not in own]


@pytest.fixture(scope="module")
def kernels(shared_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give what the kernel's own mount of the image shows."""
    point = tmp_path_factory.mktemp("kernel")
    image = tmp_path_factory.mktemp("image") / "image"
    image.write_bytes((shared_machine.root / "srv/image").read_bytes())
    with loop_mounted(image, point):
        return subprocess.run(["sh", "-c", SUMS, point], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def without_fusermount(machine: Machine) -> Iterator[None]:
    """Take its bit from the system's program."""
    machine.run("chmod", "u-s", "/usr/bin/fusermount3")
    yield
    machine.run("chmod", "u+s", "/usr/bin/fusermount3")


@pytest.mark.usefixtures("nothing_of_alices")
def test_by_the_systems_program(login: Callable[..., Done], machine: Machine, kernels: str) -> None:
    done = login("fuservice", "mount", "image")
    assert (done.stdout, done.stderr) == (f"{POINT}\n", "")
    assert mounts(machine) == [POINT]
    assert login("sh", "-c", SUMS, POINT).stdout == kernels
    (row,) = json.loads(login("fuservice", "list", "--json").stdout)
    assert (row["mount point"], row["back end"], row["uid"], row["cage"]) == (POINT, "fusermount3", UID, "whole")
    assert login("fuservice", "umount", "image").stderr == ""


@pytest.mark.usefixtures("nothing_of_alices")
def test_a_service_of_the_users_own_serves_what_the_systems_program_mounts(
    login: Callable[..., Done],
    installed: As,  # noqa: F811
    machine: Machine,
    kernels: str,
) -> None:
    """Its server has the fuse device long before there is a mount that this one could be."""
    (told,) = [
        row for row in json.loads(login("fuservice", "doctor", "--json").stdout)["servers"] if row["type"] == "ext4"
    ]
    assert told == {"type": "ext4", "by": "a service of your own", "socket": f"{OWN}/filesystems/ext4"}
    assert login("fuservice", "mount", "image").stdout == f"{POINT}\n"
    assert login("sh", "-c", SUMS, POINT).stdout == kernels
    (row,) = json.loads(login("fuservice", "list", "--json").stdout)
    assert row["back end"] == "fusermount3" and row["unit"].startswith("fuservice-ext4@")
    assert login("fuservice", "umount", "image").stderr == ""
    assert machine.becomes(lambda: not servers(installed))


@pytest.mark.usefixtures("nothing_of_alices")
@pytest.mark.parametrize("how", ["kill --signal=KILL", "stop", "server"])
def test_what_a_dead_server_of_the_users_own_has_left(
    login: Callable[..., Done],
    installed: As,  # noqa: F811
    machine: Machine,
    how: str,
) -> None:
    assert login("fuservice", "mount", "image").stdout == f"{POINT}\n"
    (unit,) = servers(installed)
    if how == "server":
        machine.run("pkill", "--uid", str(UID), "--exact", "--signal=KILL", "ext4")  # of this machine's processes
    else:
        installed("systemctl", "--user", *how.split(), unit)
    assert machine.becomes(lambda: not mounts(machine), 5), machine.journal()
    assert machine.becomes(lambda: not servers(installed))
    assert "its server died" in login("fuservice", "why").stdout
    assert login("fuservice", "mount", "image").stdout == f"{POINT}\n"
    login("fuservice", "umount", "image")
    assert machine.becomes(lambda: not servers(installed))
    assert not machine.run("ls", f"{OWN}/fuservice-servers").stdout


@pytest.mark.usefixtures("nothing_of_alices", "without_fusermount")
def test_by_nobody_but_the_kernel(login: Callable[..., Done], machine: Machine, kernels: str) -> None:
    report = json.loads(login("fuservice", "doctor", "--json").stdout)
    assert (report["back end"], report["cage"]) == ("namespace", None)
    assert (
        login("fuservice", "run", "image", "--", "sh", "-c", f"exec sh -c '{SUMS}' \"$FUSERVICE_MOUNT\"").stdout
        == kernels
    )
    assert login("fuservice", "mount", "--private", "image").stdout == f"{POINT}\n"
    assert not mounts(machine)
    assert login("fuservice", "enter", "image", "--", "sh", "-c", SUMS, POINT).stdout == kernels
    (row,) = json.loads(login("fuservice", "list", "--json").stdout)
    assert (row["mount point"], row["private"], row["uid"]) == (POINT, True, UID)
    assert login("fuservice", "umount", "image").stderr == ""


@pytest.mark.usefixtures("without_fusermount")
def test_what_is_kept_goes_when_the_users_manager_ends(login: Callable[..., Done], machine: Machine) -> None:
    assert login("fuservice", "mount", "--private", "image").stdout == f"{POINT}\n"
    manager = f"user@{UID}.service"
    machine.run("systemctl", "stop", manager)
    assert machine.becomes(lambda: not processes(machine)), processes(machine)
    # It kills what is left below it; the directory goes with all that is of the session, at the latest after ten seconds
    # (UserStopDelaySec=, logind.conf(5), in newer versions).
    assert machine.becomes(lambda: not (machine.root / OWN.lstrip("/")).exists(), 30)
    machine.run("systemctl", "start", manager)
