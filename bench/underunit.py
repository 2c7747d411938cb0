"""Mounting by way of a hardened unit, in a machine that systemd runs: ``python -m bench.underunit`` (root, systemd).

What is measured runs inside, and is what bench/latency.py measures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench import latency

IMAGE, POINT = "/srv/image", "/mnt/unit"
WARMING_UP = 3


def rounds(count: int) -> list[tuple[float, float]]:
    """Return the milliseconds of *count* mounts: until they were there, and until the first byte of a file was."""
    from tests.systemd.conftest import make_image
    from tests.systemd.machine import Machine

    with Machine() as machine:
        make_image(machine.root / IMAGE[1:])
        machine.run("mkdir", POINT)
        machine.run("fuservice", "units", "install", "ext4")
        here = Path(__file__).resolve().parents[1]
        command = ["env", "-C", str(here), sys.executable, "-m", "bench.underunit", "--inside", str(count)]
        said = machine.run(*command, timeout=60 + count).stdout
    return [(float(mounted), float(read)) for mounted, read in map(str.split, said.splitlines())]


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--inside"]:
        found = [latency.once(latency.UNIT, IMAGE, POINT, []) for _ in range(WARMING_UP + int(sys.argv[2]))]
        print(*(f"{mounted} {read}" for mounted, read in found[WARMING_UP:]), sep="\n")
        return
    latency.show(latency.UNIT, rounds(50))


if __name__ == "__main__":
    main()
