"""A running listener with toy services, ended with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.launch.listening import Listening
from tests.launch.toys import PROGRAM


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Listening]]:
    """Give a function that starts a listener with toy services; *before* are words like ``prlimit --nofile=…``."""
    started: list[Listening] = []

    def run(*words: str, before: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> Listening:
        setting = [f"{key}={value}" for key, value in (environment or {}).items()]
        command = [*before, "env", *setting, *PROGRAM, "listen", str(tmp_path / "s"), *words]
        listening = Listening(command, tmp_path / f"log{len(started)}", tmp_path / "s")
        started.append(listening)
        listening.wait_for("ready 1")
        return listening

    yield run
    for listening in started:
        listening.program.stop()


@pytest.fixture
def listening(start: Callable[..., Listening]) -> Listening:
    """Give a running listener with toy services."""
    return start()
