"""What starting the mount helper costs, in processor time of whole processes, beside an empty Python.

``python -m bench.start``: the programs take turns, so that a machine whose speed drifts is as unfair to one as to the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

EMPTY = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]
HELPER = [str(Path(sys.executable).parent / "fuservicemount"), "-t", "ext4", "--check"]
BUDGET_MS = 25


def processor_ms(command: list[str]) -> float:
    """Run *command* to its end; return its user and system time in milliseconds."""
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
    _, _, usage = os.wait4(pid, 0)
    return (usage.ru_utime + usage.ru_stime) * 1000


def main() -> None:
    """Measure and print medians, and the median of the differences pair by pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="runs of each (default 60)")
    rounds = parser.parse_args().rounds
    pairs = [(processor_ms(EMPTY), processor_ms(HELPER)) for _ in range(rounds)]
    empty, helper = (statistics.median(times) for times in zip(*pairs, strict=True))
    more = statistics.median(b - a for a, b in pairs)
    print(f"{'python3 -I -S -c pass':32} {empty:6.1f} ms of processor time (median of {rounds})")
    print(f"{'fuservicemount --check':32} {helper:6.1f} ms")
    print(f"{'more, pair by pair':32} {more:6.1f} ms (budget: {BUDGET_MS})")


if __name__ == "__main__":
    main()
