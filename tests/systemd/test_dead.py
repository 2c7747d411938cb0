"""A mount whose server in a unit has died: it is detached, and its mount point can be used again; no other is touched."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.systemd.conftest import dropped_in, main_pid, mounts, server_pid, servers, systemd_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.systemd.machine import Machine

    Mount = Callable[..., str]

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

SOON = 5.0  # seconds


def kill(machine: Machine, unit: str) -> None:
    """Kill the server of *unit*, nothing else of it."""
    machine.run("kill", "-KILL", str(server_pid(machine, unit)))


def stop(machine: Machine, unit: str) -> None:
    """Have systemd stop *unit*."""
    machine.run("systemctl", "stop", unit)


def kill_all(machine: Machine, unit: str) -> None:
    """Kill all processes of *unit*."""
    machine.run("systemctl", "kill", "--signal=KILL", unit)


def orphan(machine: Machine, unit: str) -> None:
    """Kill who looks after the server of *unit*, which dies with it."""
    machine.run("kill", "-KILL", str(main_pid(machine, unit)))


@pytest.mark.parametrize("end", [kill, stop, kill_all, orphan])
def test_its_mount_point_can_be_used_again(mount: Mount, machine: Machine, end: Callable[[Machine, str], None]) -> None:
    first = mount("/mnt/a")
    (unit,) = servers(machine)
    second = mount("/mnt/b")
    if (
        end is kill_all and systemd_version(machine) > 252
    ):  # then the kernel kills whoever is started in that group, too
        end = kill
    end(machine, unit)
    assert machine.becomes(lambda: mounts(machine) == [second], SOON), machine.journal()
    assert machine.run("ls", first).stdout == ""
    assert machine.run("cat", f"{second}/words").stdout == "read through systemd\n"
    assert machine.run("cat", f"{mount(first)}/words").stdout == "read through systemd\n"
    assert f"{first}: detached: its server died" in machine.journal("--unit", unit)
    for point in (first, second):
        machine.run("umount", point)
    assert machine.becomes(lambda: not servers(machine))
    assert "detached" not in machine.journal("--unit", "fuservice-ext4@*", "--since=-2s", "--grep=mnt/b")


def test_one_that_somebody_is_in(mount: Mount, machine: Machine) -> None:
    point = mount()
    with subprocess.Popen(machine.inside("env", "-C", point, "cat"), stdin=subprocess.PIPE) as inside:
        kill(machine, *servers(machine))
        assert machine.becomes(lambda: not mounts(machine), SOON)
        inside.communicate(b"", timeout=20)


def test_a_server_that_only_hangs_keeps_its_mount(mount: Mount, machine: Machine) -> None:
    hangs, dies = mount("/mnt/a"), mount("/mnt/b")
    hanging, dying = servers(machine)
    pid = str(server_pid(machine, hanging))
    machine.run("kill", "-STOP", pid)
    kill(machine, dying)
    assert machine.becomes(lambda: mounts(machine) == [hangs], SOON) and dies not in mounts(machine)
    machine.run("kill", "-CONT", pid)
    assert machine.run("cat", f"{hangs}/words").stdout == "read through systemd\n"
    machine.run("umount", hangs)


def test_the_receipt_says_why(machine: Machine) -> None:
    machine.run("mkdir", "-p", "/mnt/a")
    machine.run("fuservice", "mount", "/srv/image", "/mnt/a", "-t", "ext4")
    kill(machine, *servers(machine))
    assert machine.becomes(lambda: not mounts(machine), SOON)
    assert machine.becomes(
        lambda: "its server died: server ended with signal 9" in machine.run("fuservice", "why").stdout
    )


def test_a_mount_of_another_namespace_is_left_to_it(machine: Machine) -> None:
    """Its end is that of whoever lives there."""
    machine.run("mkdir", "-p", "/mnt/a")
    code = "fuservicemount /srv/image /mnt/a -t ext4 && echo mounted && read go; ls /mnt/a"
    words = machine.inside("unshare", "-m", "sh", "-c", code)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as there:
        assert there.stdout and there.stdout.readline() == "mounted\n"
        kill(machine, *servers(machine))
        assert machine.becomes(lambda: not servers(machine))
        _, complaint = there.communicate("\n", timeout=20)
    assert "not connected" in complaint


def test_what_is_not_dead_is_not_detached(mount: Mount, machine: Machine) -> None:
    """Whatever made systemd think that a server had ended: the kernel has the last word."""
    point = mount()
    (unit,) = servers(machine)
    instance = unit.partition("@")[2].removesuffix(".service")
    python = machine.run("systemctl", "cat", unit).stdout.partition("; exec ")[2].split(" ")[0]
    machine.run(python, "-I", "-m", "fuservice.cli.stopped", "ext4", instance)
    assert mounts(machine) == [point]
    machine.run("umount", point)


def test_an_automount_mounts_it_again(machine: Machine) -> None:
    mount = "[Mount]\nWhat=/srv/image\nWhere=/mnt/auto\nType=fuservice.ext4\nOptions=ro\n"
    for name, text in (("mount", mount), ("automount", "[Automount]\nWhere=/mnt/auto\n")):
        machine.run("tee", f"/etc/systemd/system/mnt-auto.{name}", text=text)
    machine.run("sh", "-c", "ln -sf $(command -v mount.fuservice) /usr/sbin/mount.fuservice; mkdir -p /mnt/auto")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "mnt-auto.automount")
    try:
        for _ in range(2):
            assert machine.run("cat", "/mnt/auto/words").stdout == "read through systemd\n"
            kill(machine, *servers(machine))
            assert machine.becomes(lambda: not mounts(machine), SOON)
            assert machine.becomes(lambda: not servers(machine))
    finally:
        machine.run("systemctl", "stop", "mnt-auto.automount", "mnt-auto.mount")
        machine.run("rm", "/etc/systemd/system/mnt-auto.mount", "/etc/systemd/system/mnt-auto.automount")
        machine.run("systemctl", "daemon-reload")


def test_without_that_it_stays_and_answers_at_once(mount: Mount, machine: Machine) -> None:
    with dropped_in(machine, "ExecStopPost="):
        point = mount()
        kill(machine, *servers(machine))
        assert machine.becomes(lambda: not servers(machine))
        assert "not connected" in machine.run("ls", point, check=False, timeout=5).stderr
        machine.run("fuservice", "umount", point)
