"""Either end killed at every step of the conversation: the other ends too and says why, and nothing stays mounted.

But for a helper that is killed when it has attached the mount and not said goodbye yet: that mount is whole, and stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.middle import Middle
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Listener

pytestmark = pytest.mark.needs("root", "fuse", "e2fsprogs", "installed")

#: The honest conversation of our ext4 server, in the order of the packets. The first test sees that it still is.
HELLO = ["SAFT", "LAST", "FILE", "FILE"]
STEPS = [*HELLO, "OPEN", "FILE", "TYPE", "REPL", "NAME", "REPL", "MNTP", "REPL", "DOIT", "REPL", "BYEE"]
ATTACHED = STEPS.index("DOIT") + 1  # when the helper answers, it has attached the mount


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give a small good image."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


@pytest.fixture
def middle(listener: Listener, tmp_path: Path) -> Iterator[Middle]:
    """Give somebody between helper and listener."""
    (tmp_path / "front").mkdir()
    with Middle(tmp_path / "front/ext4", listener.sockets / "ext4") as between:
        yield between


@pytest.fixture
def helper(image: Path, mount_point: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a helper that is on its way to whoever listens in the middle."""
    command: list[str | Path] = [PROGRAMS / "fuservicemount", image, mount_point, "-t", "ext4", "-o", "ro"]
    command.append(f"--socket-dir={tmp_path}/front")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()
        detach_all(mount_point)


def test_the_conversation(middle: Middle, helper: subprocess.Popen[str], mount_point: Path, listener: Listener) -> None:
    middle.relay()
    assert (helper.wait(20), helper.communicate()[1]) == (0, "")
    assert middle.seen == STEPS
    assert os.listdir(mount_point) == ["lost+found"]
    detach_all(mount_point)
    wait_until(lambda: not listener.servers(), "the server ends with its mount")


@pytest.mark.parametrize("activated_by", ["listen"], indirect=True)  # in a unit it is systemd that finds it dead
@pytest.mark.parametrize("step", range(1, len(STEPS)), ids=lambda n: f"{n}-{STEPS[n]}")
def test_the_server_is_killed(
    middle: Middle, helper: subprocess.Popen[str], mount_point: Path, listener: Listener, step: int
) -> None:
    def kill() -> None:
        (server,) = listener.servers()
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not listener.servers(), "the killed server is buried")

    middle.relay(step, kill)
    said = helper.communicate(timeout=20)[1]
    assert helper.returncode == 1, said
    assert said and "Traceback" not in said
    assert mounted(mount_point) is None
    assert "server ended with signal 9" in listener.said()


@pytest.mark.parametrize("step", range(len(STEPS)), ids=lambda n: f"{n}-{STEPS[n]}")
def test_the_helper_is_killed(
    middle: Middle, helper: subprocess.Popen[str], mount_point: Path, listener: Listener, step: int
) -> None:
    def kill() -> None:
        helper.kill()
        helper.wait()

    middle.relay(step, kill)
    if step >= ATTACHED:  # it had done its work: what is mounted is served, and goes when it is unmounted
        assert os.listdir(mount_point) == ["lost+found"]
        detach_all(mount_point)
    wait_until(lambda: not listener.servers(), "the server ends")
    assert "Traceback" not in listener.said()
    assert mounted(mount_point) is None
