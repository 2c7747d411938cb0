"""Mounting by way of a hardened unit, in a machine that systemd runs: ``python -m bench.underunit`` (root, systemd).

What is measured runs inside: from the exec of fuservicemount to its exit 0, as in bench/latency.py, and on to the first byte
of a file.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
IMAGE, POINT = "/srv/image", "/mnt/unit"
FILE = Path(POINT, "words")
WARMING_UP = 3


def rounds(count: int) -> list[float]:
    """Return the milliseconds that each of *count* mounts took, until they were there."""
    return [mounted for mounted, _ in both(count)]


def both(count: int) -> list[tuple[float, float]]:
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


def _once() -> tuple[float, float]:
    command = [str(PROGRAMS / "fuservicemount"), IMAGE, POINT, "-t", "ext4"]
    began = time.perf_counter()
    _, status = os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)
    mounted = time.perf_counter()
    if status:
        sys.exit("bench: the unit did not mount")
    with FILE.open("rb", buffering=0) as file:
        file.read(1)
    read = time.perf_counter()
    subprocess.run(["umount", POINT], check=True)
    return (mounted - began) * 1000, (read - began) * 1000


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--inside"]:
        found = [_once() for _ in range(WARMING_UP + int(sys.argv[2]))]
        print(*(f"{mounted} {read}" for mounted, read in found[WARMING_UP:]), sep="\n")
        return
    found = both(50)
    for title, times in zip(("mounted", "first byte"), zip(*found, strict=True), strict=True):
        print(
            f"{'hardened unit, ' + title:28} {statistics.median(times):7.1f} ms (median of {len(times)}, least {min(times):.1f})"
        )


if __name__ == "__main__":
    main()
