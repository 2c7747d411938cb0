"""Orders for :mod:`walk`, and the rule that every hostile image is held against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.drivers.ext4.walk import Outcome

ROOT = Path(__file__).resolve().parents[3]
MOST_MB = 400
MOST_SECONDS = 10.0

Order = dict[str, object]


def order(
    name: str, path: Path, *edits: tuple[int, bytes], cut: int | None = None, check: bool = True, recover: bool = False
) -> Order:
    """Return the order to walk the image at *path* (gzip by suffix), with *edits* of its bytes, *cut* to so many.

    *check*: checksums are verified. *recover*: as -o recover shows it.
    """
    pairs = [(position, data.hex()) for position, data in edits]
    return {"name": name, "path": str(path), "edits": pairs, "cut": cut, "check": check, "recover": recover}


def walked(orders: Iterable[Order], *, seconds: float = 100, most_mb: int = MOST_MB) -> list[Outcome]:
    """Walk the images in one process; fail if any takes too long, too much memory, or shows an exception that is not ours.

    *seconds* is for all of them together.
    """
    lines = "".join(json.dumps(one) + "\n" for one in orders)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.drivers.ext4.walk", str(MOST_MB), str(MOST_SECONDS)], cwd=ROOT, env=environment,
        input=lines, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    outcomes = [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {len(outcomes)} images: {done.stderr}"
    assert len(outcomes) == lines.count("\n")
    assert [one for one in outcomes if one.outcome == "bug"] == []
    assert [one for one in outcomes if one.seconds > MOST_SECONDS] == []
    assert max(one.peak_mb for one in outcomes) < most_mb
    return outcomes


def summary(what: str, outcomes: list[Outcome]) -> str:
    """Return one line with the counts per outcome, and the slowest and the largest."""
    counts = Counter(one.outcome for one in outcomes)
    slowest = max(outcomes, key=lambda one: one.seconds)
    return (
        f"{what}: {len(outcomes)} images: {counts['served']} served, {counts['damaged']} served with damaged objects, "
        f"{counts['refused']} refused; slowest {slowest.seconds:.2f} s ({slowest.name}), peak {max(o.peak_mb for o in outcomes)} MB"
    )
