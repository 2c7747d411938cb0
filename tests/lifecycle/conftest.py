"""The yard for each module, and a clean one for each test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lifecycle.yard import Yard, yard


@pytest.fixture(scope="module")
def _yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    # A gate (needs) is shut before fixtures are made, so this runs only where it can.
    log: Path = tmp_path_factory.mktemp("lifecycle") / "listener.log"
    with yard(log) as made:
        yield made


@pytest.fixture(name="yard")
def _clean_yard(_yard: Yard) -> Iterator[Yard]:
    """Give the yard, with nothing mounted; what the test mounts is detached at the end."""
    assert not _yard.here()
    yield _yard
    _yard.settle()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """Give a loop device of 4 MiB; detached at the end."""
    file = tmp_path / "disk"
    file.write_bytes(bytes(4 << 20))
    made = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=True)
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)
