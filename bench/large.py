"""What size costs: a filesystem of 1 TiB beside one of 64 MiB, and a walk over a million files.

``python -m bench.large`` (root, e2fsprogs): from the exec of ``fuservicemount --direct`` to the end of ``ls``, in alternating rounds.
``python -m bench.large --walk``: how much memory the server has at most while find(1) asks for a million inodes (takes minutes).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.programs import timed
from bench.rounds import Peer, enter_private_namespace, mounted, scratch

PROGRAM = Path(sys.executable).parent / "fuservicemount"
SIZES = {"64 MiB": "64M", "1 TiB": "1T"}
WALKED, IN_ONE = 1_000_000, 1000


def make(image: Path, size: str, *more: str) -> None:
    """Make a sparse ext4 image, with one file in it."""
    tree = image.with_name("tree")
    tree.mkdir(exist_ok=True)
    (tree / "file").write_bytes(b"x")
    command: list[str | Path] = ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-d", tree, *more, image, size]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (tree / "file").unlink()


def first_ls(image: Path, point: Path) -> float:
    """Return the milliseconds from the mount helper's start to the end of a listing."""
    start = time.monotonic()
    subprocess.run([PROGRAM, "--direct", image, point, "-t", "ext4", "-o", "ro"], check=True)
    names = os.listdir(point)
    spent = time.monotonic() - start
    assert "file" in names
    subprocess.run(["umount", point], check=True)
    return spent * 1000


def mounts(directory: Path, rounds: int) -> None:
    """Compare the times to the first listing."""
    point = directory / "mnt"
    point.mkdir()
    for title, size in SIZES.items():
        make(directory / title, size)
    pairs = [[first_ls(directory / title, point) for title in SIZES] for _ in range(rounds)]
    for title, times in zip(SIZES, zip(*pairs, strict=True), strict=True):
        print(f"mount and ls, {title:8} {statistics.median(times):8.1f} ms")
    print(f"more, pair by pair     {statistics.median(large - small for small, large in pairs):8.1f} ms")


def walk(directory: Path, cpu: int) -> None:
    """Let the kernel's own ext4 make a million files, and find(1) ask ours for each."""
    image, point = directory / "image", directory / "mnt"
    make(image, "4G", "-N", str(WALKED + 2 * IN_ONE))
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    for number in range(WALKED // IN_ONE):
        (point / f"directory{number}").mkdir()
        for file in range(IN_ONE):
            os.mknod(point / f"directory{number}/file{file}")
    subprocess.run(["umount", point], check=True)
    point.rmdir()

    def tell(pid: int) -> None:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        print(*(line for line in lines if line.startswith(("VmHWM", "VmRSS"))), sep="\n")

    peer = Peer("fuservice", [sys.executable, "-m", "bench.serve", "MNT", "ext4-cached", str(image)])
    with mounted(peer, point, cpu, at_end=tell):
        seconds = timed("find MNT -size +1000 | wc -l >&2", point, cpu)
    print(f"{WALKED:,} files: {WALKED / seconds:,.0f}/s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="mounts of each (default 15)")
    parser.add_argument("--walk", action="store_true", help="walk over a million files")
    options = parser.parse_args()
    enter_private_namespace()
    with scratch() as directory:
        walk(directory, (os.cpu_count() or 1) - 1) if options.walk else mounts(directory, options.rounds)


if __name__ == "__main__":
    main()
