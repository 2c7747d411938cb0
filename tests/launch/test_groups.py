"""Control groups for servers: in one that was marked as ours, as systemd marks it; nowhere else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.cage.profile import MOST_THREADS
from fuservice.launch import groups
from fuservice.linux import mountinfo
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.launch.listening import Listening

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def group() -> Iterator[Path]:
    """Give a control group of our own, below the root of the unified hierarchy; removed with what a listener left in it."""
    mounts = [mount for mount in mountinfo.mounts() if mount.fstype == "cgroup2"]
    if not mounts:
        pytest.skip("no cgroup2 is mounted here")
    place = Path(mounts[0].mount_point) / f"fuservice-test-{os.getpid()}"
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error.strerror}")
    yield place
    for below in [*place.glob("*/")]:
        wait_until(lambda below=below: not (below / "cgroup.procs").read_text(), "the end of a group's processes")  # type: ignore[misc]
        below.rmdir()
    place.rmdir()


def mark(group: Path) -> None:
    """Do as systemd does for Delegate=yes."""
    os.setxattr(group, groups.MARKS[0], b"1")


def path_of(pid: int | str) -> str:
    """Return the path of the process's group in the unified hierarchy."""
    (line,) = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    return line.partition("::")[2]


def test_a_group_that_nobody_marked_is_not_ours(group: Path, tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text(f"1:cpu:/x\n0::/{group.name}\n")
    assert groups.delegated(str(own)) is None
    mark(group)
    assert groups.delegated(str(own)) == str(group)
    own.write_text("1:cpu:/\n")
    assert groups.delegated(str(own)) is None


def test_each_server_of_a_listener_has_a_group_of_its_own(group: Path, start: Callable[..., Listening]) -> None:
    mark(group)
    enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    listening = start(before=("sh", "-c", enter, "sh"))
    connections = [listening.connect("hold") for _ in range(2)]
    assert [connection.receive(100) for connection in connections] == [b"serving"] * 2
    found = listening.servers()
    assert len(found) == 2
    own = {f"/{group.name}/server-{pid}" for pid in found}
    # A server is moved while it enters its cage: it may serve before that.
    wait_until(lambda: {path_of(pid) for pid in found} == own, "each server is in its own group")
    assert {path_of(pid) for pid in [listening.program.pid, *listening.warm()]} == {f"/{group.name}/listener"}
    for connection in connections:
        connection.close()
    wait_until(lambda: not [*group.glob("server-*")], "the groups of servers that have ended are gone")


def test_a_group_that_cannot_be_divided_stops_the_start(group: Path) -> None:
    """Somebody else's process in it is in the way, if it has a controller; a group that is gone always is."""
    with pytest.raises(OSError, match="No such file") as refused:
        groups.Groups(str(group / "missing" / "deeper"))
    assert refused.value.filename


def test_budgets_are_written_where_the_kernel_has_the_controllers(group: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        pid = os.fork()
        if pid == 0:  # the listener of this test: it moves itself
            made = groups.Groups(str(group))
            made.add(child.pid)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert path_of(child.pid) == f"/{group.name}/server-{child.pid}"
        there = (group / "cgroup.controllers").read_text().split()
        below = group / f"server-{child.pid}"
        if "memory" in there:
            assert (below / "memory.max").read_text() == f"{1280 << 20}\n"
        if "pids" in there:
            assert (below / "pids.max").read_text() == f"{1 + MOST_THREADS}\n"
    finally:
        child.kill()
        child.wait()
