"""A filesystem of fstab: there when the machine is up, or when somebody looks, and no reason to wait when it goes down."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.capabilities import PROGRAMS
from tests.systemd.conftest import make_image, mounts, server_pid, servers
from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

SOON = 20.0  # seconds: an administrator who waits for a machine to go down waits for ninety where something hangs
SOCKET = "x-systemd.requires=fuservice-ext4.socket"

Boot = Callable[[str], Machine]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str | bytes | Path]:
    """Give the files of a machine with units, an image, and what mount(8) looks for."""
    directory = tmp_path_factory.mktemp("installed")
    make_image(directory / "image")
    subprocess.run([PROGRAMS / "fuservice", "units", "install", "--root", directory, "ext4"], check=True)
    units = (directory / "etc/systemd/system").iterdir()
    return {
        "/srv/image": (directory / "image").read_bytes(),
        "/usr/sbin/mount.fuservice": PROGRAMS / "mount.fuservice",
        **{f"/etc/systemd/system/{path.name}": path.read_text() for path in units},
    }


@pytest.fixture
def boot(installed: Mapping[str, str | bytes | Path]) -> Iterator[Boot]:
    """Give a function that boots a machine with one line of fstab, with the options that it is given."""
    machines: list[Machine] = []

    def make(options: str) -> Machine:
        line = f"/srv/image /mnt/a fuservice.ext4 ro,{options} 0 0\n"
        machines.append(Machine({**installed, "/etc/fstab": line}))
        return machines[-1]

    yield make
    for machine in machines:
        machine.power_off()


def is_up(machine: Machine, unit: str) -> bool:
    """Return whether *unit* is active."""
    return machine.run("systemctl", "is-active", unit, check=False).stdout == "active\n"


def going_down(machine: Machine) -> str:
    """Power *machine* off; return what systemd said meanwhile.

    The journal ends too early to tell. The machine has no log of a kernel: systemd takes a pipe for it, whose other end is ours.
    """
    machine.run("mkfifo", "/dev/kmsg")
    log = os.open(machine.root / "dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
    try:
        machine.run("systemctl", "log-target", "kmsg")
        assert machine.power_off(SOON)
        said = os.read(log, 1 << 16).decode()
    finally:
        os.close(log)
    print(*(line for line in said.splitlines() if re.search(r"mnt-a|fuservice|umount|shutdown", line)), sep="\n")
    return said


@pytest.mark.parametrize("options", [SOCKET, f"nofail,{SOCKET}"], ids=["must", "nofail"])
def test_it_is_mounted_at_boot_after_its_socket(boot: Boot, options: str) -> None:
    machine = boot(options)
    assert machine.becomes(lambda: is_up(machine, "mnt-a.mount"))
    assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
    when = [
        int(machine.run("systemctl", "show", "--value", "--property", f"{fact}EnterTimestampMonotonic", unit).stdout)
        for unit, fact in (("fuservice-ext4.socket", "Active"), ("mnt-a.mount", "Active"))
    ]
    assert when == sorted(when)
    if "nofail" not in options:
        assert "mnt-a.mount" in machine.run("systemctl", "list-dependencies", "--plain", "local-fs.target").stdout
    assert not machine.run("systemctl", "--failed", "--no-legend").stdout
    print(machine.run("systemd-analyze", "critical-chain", "--no-pager", "mnt-a.mount").stdout)
    said = going_down(machine)
    unmounted, server = said.index("Unmounted mnt-a.mount"), said.find("fuservice-ext4@")
    assert server == -1 or unmounted < server  # which ends by itself, after its mount
    assert not re.search(r"mnt-a\.mount: Failed|Failed unmounting", said)


def test_an_automount_is_mounted_when_somebody_looks(boot: Boot) -> None:
    machine = boot(f"x-systemd.automount,{SOCKET}")
    assert is_up(machine, "mnt-a.automount") and not servers(machine)
    assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
    assert len(servers(machine)) == 1
    assert machine.power_off(SOON)


def test_an_automount_may_do_without_anybody_who_listens(boot: Boot) -> None:
    machine = boot("x-systemd.automount,transient")
    assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
    assert not servers(machine)  # of a template
    (line,) = machine.run("systemctl", "list-units", "--plain", "--no-legend", "fuservice-ext4-*").stdout.splitlines()
    assert "running" in line
    assert machine.power_off(SOON)


def test_a_server_that_hangs_does_not_keep_the_machine_up(boot: Boot) -> None:
    machine = boot(SOCKET)
    (unit,) = servers(machine)
    pid = server_pid(machine, unit)
    machine.run("kill", "-STOP", str(pid))
    began = time.monotonic()
    assert "Unmounted mnt-a.mount" in going_down(machine)
    print(f"powered off with a stopped server within {time.monotonic() - began:.2f} s")


def test_an_image_that_is_not_there_is_no_reason_to_stop_the_boot(boot: Boot) -> None:
    machine = boot(f"nofail,offset=512,{SOCKET}")
    assert machine.becomes(
        lambda: "mnt-a.mount" in machine.run("systemctl", "--failed", "--plain", "--no-legend").stdout
    )
    assert not mounts(machine) and is_up(machine, "default.target")
    assert machine.becomes(lambda: not servers(machine))
