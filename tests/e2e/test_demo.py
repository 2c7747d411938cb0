"""`make demo` as an ordinary test: what a stranger sees first may not break unseen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.capabilities import REPOSITORY
from tests.support.mounts import mounts
from tests.support.waiting import wait_until

DEMO = [sys.executable, "-m", "demo"]


@pytest.mark.needs("root", "fuse", "loop", "ext4", "e2fsprogs", "installed")
def test_the_demo_proves_what_it_says() -> None:
    before = mounts()
    done = subprocess.run(DEMO, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    entries = re.match(
        r"demo: (\d+) entries \(.*\) of an ext4 image, served by a process with a uid of its own, no cap", last
    )
    assert entries and int(entries[1]) >= 500
    assert "CapEff: 0000000000000000" in done.stdout and "NoNewPrivs: 1" in done.stdout
    assert mounts() == before


@pytest.mark.needs("root", "nobody-python")
def test_without_rights_it_says_so() -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run([*nobody, *DEMO], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "demo: mounting needs root: try  sudo make demo\n"


@pytest.mark.needs("root", "fuse", "loop", "ext4", "e2fsprogs", "installed")
def test_killed_while_it_is_mounted_it_takes_everything_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen(DEMO, cwd=REPOSITORY, stdout=output, process_group=0) as demo:
        wait_until(lambda: "fuse.ext4" in log.read_text(), "the demo has mounted", 60)
        demo.kill()
    (place,) = set(re.findall(r"/tmp/fuservice-demo\.\w+", log.read_text()))

    def left() -> str:
        return subprocess.run(
            ["losetup", "-l", "-n", "-O", "BACK-FILE"], capture_output=True, text=True, check=True
        ).stdout

    wait_until(lambda: place not in left(), "the loop device is free")
    Path(place).rmdir()  # empty: what was mounted there went with its namespace
