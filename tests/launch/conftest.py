"""A running listener with toy services, ended with the test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launch.listening import Listening
from tests.support.capabilities import REPOSITORY


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Listening]]:
    """Give a function that starts a listener with toy services; *before* are words like ``prlimit --nofile=…``."""
    started: list[Listening] = []

    def run(*before: str) -> Listening:
        run_it = f"import sys; sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / 'src')]}; sys.argv[1:] = [{str(tmp_path / 's')!r}];"
        command = [*before, sys.executable, "-c", f"{run_it} from tests.launch.toys import main; main()"]
        listening = Listening(command, tmp_path / "log", tmp_path / "s")
        started.append(listening)
        listening.wait_for("ready")
        return listening

    yield run
    for listening in started:
        listening.program.stop()


@pytest.fixture
def listening(start: Callable[..., Listening]) -> Listening:
    """Give a running listener with toy services."""
    return start()
