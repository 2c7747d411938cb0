"""Lint, layout and types are ordinary tests: what the tools say fails here as it fails in `make lint`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.capabilities import REPOSITORY


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["ruff check --quiet .", "ruff format --check --quiet .", "mypy"])
def test_the_tools_are_content(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
