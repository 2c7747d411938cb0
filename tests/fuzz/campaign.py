"""Fuzzing one target for a while: seeds in, figures and findings out, what is new kept."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support.capabilities import REPOSITORY

CORPUS = Path(__file__).parent / "corpus"
LARGEST_INPUT = 4096  # bytes
START_UP = 60.0  # seconds: importing what is instrumented, and reading the seeds
EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)


class Outcome(NamedTuple):
    """What a campaign came to: how often the target ran, the inputs of interest, and what went wrong ("": nothing)."""

    target: str
    executions: int
    found: list[bytes]
    finding: str


def seeds(target: str) -> list[bytes]:
    """Return the inputs that are kept for *target*."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())] if (CORPUS / target).is_dir() else []


def fuzz(target: str, seconds: int, place: Path) -> Outcome:
    """Fuzz *target* for *seconds*; what is interesting and what fails lies in *place* afterwards."""
    interesting, findings = place / target / "interesting", place / target / "findings"
    for directory in (interesting, findings, CORPUS / target):
        directory.mkdir(parents=True, exist_ok=True)
    words = [
        f"-max_total_time={seconds}", f"-max_len={LARGEST_INPUT}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
        f"-artifact_prefix={findings}/", interesting, CORPUS / target,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.one", target, *map(str, words)], cwd=REPOSITORY, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + START_UP, check=False,
        env={**os.environ, "PYTHONPATH": os.fspath(REPOSITORY / "src")},
    )  # fmt: skip
    said = done.stdout.decode(errors="replace")
    executed = EXECUTED.search(said)
    left = "".join(f"\n{path.name}: {path.read_bytes()!r}" for path in sorted(findings.iterdir()))
    wrong = done.returncode != 0 or left or executed is None
    new = [path.read_bytes() for path in sorted(interesting.iterdir())]
    return Outcome(target, int(executed[1]) if executed else 0, new, f"{said[-4000:]}{left}" if wrong else "")


def keep(target: str, inputs: list[bytes]) -> None:
    """Make *inputs* the corpus of *target*; each is named by what is in it."""
    directory = CORPUS / target
    for path in directory.iterdir():
        path.unlink()
    for data in inputs:
        (directory / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
