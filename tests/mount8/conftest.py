"""The machine for each module, and a clean one for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount8.station import Station, station


@pytest.fixture(scope="module")
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    # A gate (needs) is shut before fixtures are made, so this runs only where it can.
    log: Path = tmp_path_factory.mktemp("mount8") / "listener.log"
    with station(log, ("mount.fuservice", "mount.fuse.ext4")) as made:
        yield made


@pytest.fixture
def machine(_machine: Station) -> Iterator[Station]:
    """Give the machine, with nothing mounted; what the test mounts is detached at the end."""
    assert not _machine.mounted()
    yield _machine
    _machine.settle()
