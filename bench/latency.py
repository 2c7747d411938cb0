"""How long it takes from the exec of fuservicemount to its exit 0, when the filesystem is mounted, and to the first byte of a file.

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
    from collections.abc import Iterator, Mapping, Sequence

    Took = tuple[float, float]

PROGRAMS = Path(sys.executable).parent
LISTEN, DIRECT, BARE, UNIT = "listen, caged", "direct, caged", "bare, no cage", "hardened unit"


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


def once(name: str, image: str, point: str, words: Sequence[str]) -> Took:
    """Mount and unmount; return the milliseconds until it was mounted, and until the first byte was there."""
    command = [str(PROGRAMS / "fuservicemount"), image, point, "-t", "ext4", *words]
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status = os.waitpid(pid, 0)
    mounted = time.perf_counter()
    if status:
        sys.exit(f"bench: {name}: did not mount")
    with open(f"{point}/words", "rb", buffering=0) as file:  # noqa: PTH123
        file.read(1)
    read = time.perf_counter()
    subprocess.run(["umount", point], check=True)
    return (mounted - began) * 1000, (read - began) * 1000


def show(name: str, times: Sequence[Took]) -> None:
    """Print medians."""
    mounted, read = (statistics.median(column) for column in zip(*times, strict=True))
    least = min(took for took, _ in times)
    print(f"{name:20} {mounted:7.1f} ms, first byte {read:7.1f} ms (medians of {len(times)}, least {least:.1f})")


def compare(found: Mapping[str, Sequence[Took]]) -> None:
    """Print what the cage costs, and how a listener compares with a hardened unit."""
    pairs = zip(found[LISTEN], found[BARE], strict=True)
    print(
        f"{'the cage costs':20} {statistics.median(a - c for (a, _), (c, _) in pairs):7.1f} ms, round by round (expected: at most 10)"
    )
    if UNIT in found:
        for column, what in enumerate(("", ", first byte")):
            listen, unit = (statistics.median(took[column] for took in found[way]) for way in (LISTEN, UNIT))
            print(f"{'listen / unit' + what:26} {listen / unit:5.2f}{'' if column else ' (expected: at most 0.7)'}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="rounds of each way (default 50)")
    parser.add_argument("--unit", action="store_true", help="also boot a systemd, and measure a hardened unit")
    options = parser.parse_args()
    enter_private_namespace()
    with scratch() as directory, contextlib.ExitStack() as stack:
        image, point, content = directory / "image", directory / "mnt", directory / "content"
        point.mkdir()
        content.mkdir()
        (content / "words").write_text("the first of these bytes\n")
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", content, image, "32M"], check=True, stdout=subprocess.DEVNULL)
        (content / "words").unlink()
        content.rmdir()
        measured = ways(directory)
        for way in measured:
            stack.enter_context(activated(way))
        found: dict[str, list[Took]] = {way.name: [] for way in measured}
        for _ in range(options.rounds):
            for way in measured:
                found[way.name].append(once(way.name, str(image), str(point), way.words))
        if options.unit:
            from bench import underunit

            found[UNIT] = underunit.rounds(options.rounds)
        for name, times in found.items():
            show(name, times)
        compare(found)
        stack.close()
        for way in measured:
            if way.socket is not None:
                way.socket.unlink(missing_ok=True)
                way.socket.parent.rmdir()


if __name__ == "__main__":
    main()
