"""kill -9 of a unit's processes in each state: nothing hangs, nothing is left, and the next mount works.

What a unit leaves mounted in another mount namespace than systemd's, as here, answers ENOTCONN at once. The matrix is printed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Units
from tests.e2e.middle import Middle
from tests.e2e.test_kill_matrix import ENDLESS, HANGS, STATES, command, end, looks, printed
from tests.e2e.test_kill_matrix import image as image
from tests.support.mounts import detach_all, mounted
from tests.support.waiting import wait_until
from tests.systemd.conftest import main_pid, server_pid

if TYPE_CHECKING:
    from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

VICTIMS: dict[str, Callable[[Machine, str], int]] = {"server": server_pid, "supervisor": main_pid}


@pytest.fixture(scope="module")
def matrix() -> Iterator[dict[tuple[str, str], str]]:
    """Give the matrix to fill in; printed in the end."""
    yield from printed(VICTIMS)


class Killed:
    """Units, and who of them is killed."""

    def __init__(self, machine: Machine, victim: str) -> None:
        self.units, self._machine, self._victim = Units(machine), machine, victim

    def kill(self) -> None:
        """Kill the victim; return once its unit is gone."""
        (unit,) = self.units.servers()
        self._machine.run("kill", "-KILL", str(VICTIMS[self._victim](self._machine, unit)))
        wait_until(lambda: unit not in self.units.servers(), "the end of the unit", 20)

    def in_conversation(self, step: int, image: Path, point: Path, front: Path) -> str:
        """Kill it at packet *step*; return how the helper ended."""
        front.mkdir()
        with (
            Middle(front / "ext4", self.units.sockets / "ext4") as middle,
            subprocess.Popen(command(image, point, front), stderr=subprocess.PIPE, text=True) as helper,
        ):
            middle.relay(step, self.kill, go_on=True)
            said = helper.communicate(timeout=30)[1]
        if helper.returncode == 0:
            return looks(point)
        assert (helper.returncode, said.count("\n")) == (1, 1), said
        assert mounted(point) is None
        return "exit 1"

    def once_mounted(self, image: Path, point: Path, *, reading: bool) -> str:
        """Kill it while the mount is there, and perhaps read; return how the mount looks then."""
        subprocess.run(command(image, point, self.units.sockets), check=True, capture_output=True)
        reader = subprocess.Popen(["sh", "-c", ENDLESS, point], stderr=subprocess.DEVNULL, process_group=0)
        try:
            if not reading:
                end(reader)
            self.kill()
            found = looks(point)
            if reading:
                assert reader.wait(HANGS) != 0
        finally:
            end(reader)
        return found


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_killed(
    shared_machine: Machine, image: Path, mount_point: Path, tmp_path: Path, victim: str, state: str,
    matrix: dict[tuple[str, str], str],
) -> None:  # fmt: skip
    killed, step = Killed(shared_machine, victim), STATES[state]
    try:
        if step is None:
            matrix[victim, state] = killed.once_mounted(image, mount_point, reading=state == "reading")
        else:
            matrix[victim, state] = killed.in_conversation(step, image, mount_point, tmp_path / "front")
        assert matrix[victim, state] in {"exit 1", "dead"}
        detach_all(mount_point)
        subprocess.run(command(image, mount_point, killed.units.sockets), check=True, capture_output=True, timeout=20)
        assert sorted(os.listdir(mount_point)) == ["big", "lost+found"]
    finally:
        detach_all(mount_point)
    wait_until(lambda: not killed.units.servers(), "the servers end with their mounts")
