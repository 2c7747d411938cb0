"""Fixtures for the whole house: a listener, the mount helper, and images to mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.processes import Program, servers
from tests.support.waiting import wait_until


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


@pytest.fixture
def listener(listen: Callable[..., Listener]) -> Listener:
    """Give a listener for ext4."""
    return listen("ext4")


@pytest.fixture
def fuservicemount() -> Mount:
    """Give a function that runs the installed mount helper, as a shell would."""

    def run(*words: str | Path | bytes, timeout: float = 30) -> Ended:
        command = [os.fspath(PROGRAMS / "fuservicemount"), *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        return Ended(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))

    return run


@pytest.fixture
def mount_ext4(listener: Listener, fuservicemount: Mount, mount_point: Path) -> Iterator[Callable[..., Path]]:
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
