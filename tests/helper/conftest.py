"""What several tests of the helper stand on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """Give a loop device."""
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(1 << 20)
    command = ["losetup", "--find", "--show", os.fspath(backing)]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)
