"""Fixtures for the whole house: a listener, the mount helper, and images to mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.processes import Program, servers
from tests.support.waiting import wait_until
from tests.support.words import plain
from tests.systemd.conftest import servers as running
from tests.systemd.conftest import shared_machine  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from tests.systemd.machine import Machine


class Listener(NamedTuple):
    """A running `fuservice listen`."""

    program: Program
    sockets: Path

    def servers(self) -> list[int]:
        """Return the pids of the servers that it started and that still run."""
        return servers(self.program.pid)

    def said(self) -> str:
        """Return what it and its servers have printed."""
        return self.program.said()

    def descriptors(self) -> int:
        """Return how many descriptors it holds."""
        return len(os.listdir(f"/proc/{self.program.pid}/fd"))


class Units:
    """A systemd that does what `fuservice listen` does, seen from outside of its machine."""

    def __init__(self, machine: Machine) -> None:
        self.sockets = machine.root / "run/filesystems"
        self._machine = machine
        self._before = len(self._lines())

    def servers(self) -> list[str]:
        """Return the units of the servers that run."""
        return running(self._machine)

    def said(self) -> str:
        """Return what servers have printed, in lines like a listener's."""
        return "".join(f"{line}\n" for line in ("listening on a unit", *self._lines()[self._before :]))

    def _lines(self) -> list[str]:
        said = self._machine.journal("--identifier=fuservice-ext4", "--output=cat")
        return [line for line in said.splitlines() if line != "-- No entries --"]

    def descriptors(self) -> int:
        """Return 0: what systemd holds is no business of ours."""
        return 0


class Ended(NamedTuple):
    """How the mount helper ended."""

    code: int
    stdout: str
    stderr: str


Mount = Callable[..., Ended]


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[..., Listener]]:
    """Give a function that starts `fuservice listen TYPE…` and returns when its sockets are there; stopped at the end."""
    started: list[Program] = []

    def start(*types: str, options: Sequence[str] = ()) -> Listener:
        sockets = tmp_path / f"sockets{len(started)}"
        sockets.mkdir()
        sockets.chmod(0o755)
        command: list[str | Path] = [PROGRAMS / "fuservice", "listen", *types, "--socket-dir", sockets, *options]
        program = Program(command, tmp_path / f"listener{len(started)}.log")
        started.append(program)
        wait_until(
            lambda: program.ended() or all((sockets / t).is_socket() for t in types), "the listener's sockets", 20
        )
        assert not program.ended(), program.said()
        return Listener(program, sockets)

    yield start
    for program in started:
        program.stop()


@pytest.fixture(
    scope="session", params=["listen", pytest.param("units", marks=pytest.mark.needs("systemd", "nobody-python"))]
)
def activated_by(request: pytest.FixtureRequest) -> Machine | None:
    """Give the machine whose systemd starts the servers; None where `fuservice listen` does."""
    return request.getfixturevalue("shared_machine") if request.param == "units" else None


@pytest.fixture
def listener(activated_by: Machine | None, listen: Callable[..., Listener]) -> Listener | Units:
    """Give a listener for ext4: ours, and a systemd with our units."""
    return Units(activated_by) if activated_by else listen("ext4")


@pytest.fixture
def fuservicemount() -> Mount:
    """Give a function that runs the installed mount helper, as a shell would."""

    def run(*words: str | Path | bytes, timeout: float = 30) -> Ended:
        command = [os.fspath(PROGRAMS / "fuservicemount"), *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        return Ended(done.returncode, os.fsdecode(done.stdout), plain(os.fsdecode(done.stderr)))

    return run


@pytest.fixture
def mount_ext4(listener: Listener | Units, fuservicemount: Mount, mount_point: Path) -> Iterator[Callable[..., Path]]:
    """Give a function that mounts an image through helper and listener, and returns where.

    Detached before the listener is told to end: it waits for its servers, and they for their mounts.
    """

    def mount(image: Path, options: str = "ro") -> Path:
        ended = fuservicemount(image, mount_point, "-t", "ext4", "-o", options, f"--socket-dir={listener.sockets}")
        assert ended == (0, "", ""), listener.said()
        found = mounted(mount_point)
        assert found and found.fstype == "fuse.ext4", found
        return mount_point

    yield mount
    detach_all(mount_point)
