"""How long it takes from the exec of fuservicemount to its exit 0, which is when the filesystem is mounted.

``python -m bench.latency`` (root, e2fsprogs; for the unit also systemd, see bench/underunit.py). Four ways to get a server of
one ext4 image, in alternating rounds: `fuservice listen` with its cage, a direct start with the same cage, a bare forking
activator without any, and a hardened unit with Accept=yes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.rounds import enter_private_namespace, scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS = Path(sys.executable).parent
LISTEN, DIRECT, BARE = "listen, caged", "direct, caged", "bare, no cage"


class Way(NamedTuple):
    """A way to get a server: the activator, if there is one, the *socket* that it makes, and more words for the helper."""

    name: str
    activator: Sequence[str]
    socket: Path | None
    words: Sequence[str]


def ways(directory: Path) -> list[Way]:
    """Return those that need no systemd."""
    listen, bare = directory / "listen", directory / "bare"
    for place in (listen, bare):
        place.mkdir(mode=0o755)
    return [
        Way(LISTEN, [str(PROGRAMS / "fuservice"), "listen", "ext4", "--socket-dir", str(listen)], listen / "ext4",
            [f"--socket-dir={listen}"]),
        Way(DIRECT, [], None, ["--direct"]),
        Way(BARE, [sys.executable, "-m", "bench.bare", str(bare / "ext4"), "ext4"], bare / "ext4", [f"--socket-dir={bare}"]),
    ]  # fmt: skip


@contextlib.contextmanager
def activated(way: Way) -> Iterator[None]:
    """Run the activator of *way*, ready."""
    if way.socket is None:
        yield
        return
    activator = subprocess.Popen(way.activator, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    try:
        while not way.socket.exists():
            if activator.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: {way.name}: no socket")
            time.sleep(0.01)
        time.sleep(0.5)  # for a warm process to be warm
        yield
    finally:
        activator.terminate()
        activator.wait()


def once(way: Way, image: Path, point: Path) -> float:
    """Mount and unmount; return the milliseconds until it was mounted."""
    command = [str(PROGRAMS / "fuservicemount"), str(image), str(point), "-t", "ext4", *way.words]
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - began) * 1000
    if status:
        sys.exit(f"bench: {way.name}: did not mount")
    subprocess.run(["umount", str(point)], check=True)
    return took


def show(found: dict[str, list[float]]) -> None:
    """Print medians, and what was expected of them."""
    for name, times in found.items():
        print(f"{name:20} {statistics.median(times):7.1f} ms (median of {len(times)}, least {min(times):.1f})")
    cage = statistics.median(a - c for a, c in zip(found[LISTEN], found[BARE], strict=True))
    print(f"{'the cage costs':20} {cage:7.1f} ms, round by round (expected: at most 10)")


def show_unit(listen: list[float], unit: list[float]) -> None:
    """Print how `fuservice listen` compares with a hardened unit."""
    ratio = statistics.median(listen) / statistics.median(unit)
    print(f"{'hardened unit':20} {statistics.median(unit):7.1f} ms (median of {len(unit)}, least {min(unit):.1f})")
    print(f"{'listen / unit':20} {ratio:7.2f} (expected: at most 0.7)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="rounds of each way (default 50)")
    parser.add_argument("--unit", action="store_true", help="also boot a systemd, and measure a hardened unit")
    options = parser.parse_args()
    enter_private_namespace()
    with scratch() as directory, contextlib.ExitStack() as stack:
        image, point = directory / "image", directory / "mnt"
        point.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-F", image, "32M"], check=True, stdout=subprocess.DEVNULL)
        measured = ways(directory)
        for way in measured:
            stack.enter_context(activated(way))
        found: dict[str, list[float]] = {way.name: [] for way in measured}
        for _ in range(options.rounds):
            for way in measured:
                found[way.name].append(once(way, image, point))
        show(found)
        if options.unit:
            from bench import underunit

            show_unit(found[LISTEN], underunit.rounds(options.rounds))
        stack.close()
        for way in measured:
            if way.socket is not None:
                way.socket.unlink(missing_ok=True)
                way.socket.parent.rmdir()


if __name__ == "__main__":
    main()
