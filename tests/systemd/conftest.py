"""Fixtures around a booted machine: one for all tests that leave it as it was, with units installed for all types."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.prove.takenover import NAME, PROGRAM
from tests.support.capabilities import REPOSITORY
from tests.systemd.machine import Machine

UNITS = "/etc/systemd/system"


@pytest.fixture(scope="session")
def shared_machine() -> Iterator[Machine]:
    """Give a machine with the units installed, and an ext4 image /srv/image with a file in it."""
    with Machine() as machine:
        machine.run("fuservice", "units", "install")
        make_image(machine.root / "srv/image")
        yield machine


@pytest.fixture
def machine(shared_machine: Machine) -> Iterator[Machine]:
    """Give the shared machine, with nothing mounted and no server; at the end it must be so again."""
    yield shared_machine
    left = mounts(shared_machine)
    for point in left:
        shared_machine.run("umount", "-l", point)
    assert not left
    assert shared_machine.becomes(lambda: not servers(shared_machine)), servers(shared_machine)


@pytest.fixture
def mount(machine: Machine) -> Callable[..., str]:
    """Give a function that mounts /srv/image in the machine and returns where."""

    def make(point: str = "/mnt/a", *words: str) -> str:
        machine.run("mkdir", "-p", point)
        machine.run("fuservicemount", "/srv/image", point, "-t", "ext4", *words)
        return point

    return make


@pytest.fixture(scope="module")
def taken_over(shared_machine: Machine) -> Iterator[Machine]:
    """Give the machine with our units for a driver that does what its image says."""
    program = shlex.join([*PROGRAM, "unit", NAME]).replace("%", "%%")
    paths = f"BindReadOnlyPaths={REPOSITORY}\nExecPaths={REPOSITORY}\n"
    names = [f"fuservice-{NAME}.socket", f"fuservice-{NAME}@.service"]
    for name in names:
        text = shared_machine.run("cat", f"{UNITS}/{name.replace(NAME, 'ext4')}").stdout.replace("ext4", NAME)
        before, _, after = text.partition("\nExecStart=")
        if after:
            text = f"{before}\nExecStart={program} %i\n{paths}{after.partition(chr(10))[2]}"
        shared_machine.run("tee", f"{UNITS}/{name}", text=text)
    shared_machine.run("systemctl", "daemon-reload")
    shared_machine.run("systemctl", "start", names[0])
    yield shared_machine
    shared_machine.run("systemctl", "stop", names[0])
    for name in names:
        shared_machine.run("rm", f"{UNITS}/{name}")
    shared_machine.run("systemctl", "daemon-reload")


@contextlib.contextmanager
def dropped_in(
    machine: Machine, directives: str, *, unit: str = "fuservice-ext4@.service", section: str = "Service"
) -> Iterator[None]:
    """Have *unit* say *directives* besides."""
    directory = f"{UNITS}/{unit}.d"
    machine.run("mkdir", "-p", directory, "/mnt/a")
    machine.run("tee", f"{directory}/more.conf", text=f"[{section}]\n{directives}\n")
    machine.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        machine.run("rm", f"{directory}/more.conf")
        machine.run("rmdir", directory)
        machine.run("systemctl", "daemon-reload")


def systemd_version(machine: Machine) -> int:
    """Return the version of the systemd that runs *machine*."""
    return int(machine.run("systemctl", "--version").stdout.split()[1])


def mounts(machine: Machine) -> list[str]:
    """Return where filesystems are mounted whose servers are processes."""
    lines = (line.split() for line in (machine.root / "proc/1/mounts").read_text().splitlines())
    return [point for _, point, fstype, *_ in lines if fstype.startswith("fuse.")]


def servers(machine: Machine, name: str = "*") -> list[str]:
    """Return the units of the servers that run."""
    words = ("list-units", "--plain", "--no-legend", "--all", f"fuservice-{name}@*.service")
    return [line.split()[0] for line in machine.run("systemctl", *words).stdout.splitlines()]


def main_pid(machine: Machine, unit: str) -> int:
    """Return the main process of *unit*, which looks after the server, as it is numbered in *machine*."""
    return int(machine.run("systemctl", "show", "--property=MainPID", "--value", unit).stdout)


def server_pid(machine: Machine, unit: str) -> int:
    """Return the server of *unit*, the child of its main process, as it is numbered in *machine*."""
    main = main_pid(machine, unit)
    return int((machine.root / f"proc/{main}/task/{main}/children").read_text())


def make_image(path: Path) -> None:
    """Make an ext4 image, with the program mkfs.ext4 as /program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = path.with_name("content")
    content.mkdir()
    (content / "program").write_bytes(Path("/sbin/mkfs.ext4").read_bytes())
    (content / "words").write_text("read through systemd\n")
    with path.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", content, path], check=True)
