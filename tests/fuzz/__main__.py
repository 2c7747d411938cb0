"""``python -m tests.fuzz [TARGET…] [--seconds N] [--keep]``: fuzz each target, one after the other, in a process of its own."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz import reach
from tests.fuzz.campaign import Outcome, fuzz, keep, seeds
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz; return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)} (all)")
    parser.add_argument("--seconds", type=int, default=5, help="for each target (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep what is of interest in tests/fuzz/corpus, minimised")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="fuservice-fuzz-"))
    outcomes = []
    for target in options.targets or TARGETS:
        outcome = fuzz(target, options.seconds, place)
        outcomes.append(outcome)
        report(outcome)
        if options.keep and not outcome.finding:
            keep(target, reach.minimised(target, [*seeds(target), *outcome.found]))
    print(f"{sum(o.executions for o in outcomes)} executions; what was found lies in {place}")
    return int(any(outcome.finding for outcome in outcomes))


def report(outcome: Outcome) -> None:
    """Print what came of one target."""
    if outcome.finding:
        print(f"{outcome.target}: FINDING\n{outcome.finding}")
        return
    run, there = reach.lines(outcome.target, [*seeds(outcome.target), *outcome.found])
    print(
        f"{outcome.target:14}{outcome.executions:9} executions, {len(outcome.found):4} inputs, {run} of {there} lines"
    )


if __name__ == "__main__":
    sys.exit(main())
