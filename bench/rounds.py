"""How the benches measure: peers mounted side by side in a private mount namespace, each operation in alternating rounds.

Server and client are pinned to one core, so a round sees the whole cost of a request: both programs and both switches
between them. The figure of a peer is the median of its rounds. A ratio is the median of the rounds' ratios: the peers of a
round run right after each other, so what else the machine does at that time mostly cancels out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fuservice.helper.record import DIRECTORY
from fuservice.linux import mountapi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).resolve().parent
INSIDE = "FUSERVICE_BENCH_INSIDE"
RECORDS = Path(DIRECTORY).parent


class Operation(NamedTuple):
    """What load.c does, on which path below the mount point, and how its figure is read."""

    name: str
    path: str
    title: str
    per_byte: bool = False


#: What is measured, on trees that hold a file "big" and a directory "small" of files.
OPERATIONS = (
    Operation("getattr", "big", "fstat/s (GETATTR)"),
    Operation("stat", "small", "stat/s (LOOKUP GETATTR)"),
    Operation("open", "small", "open+read+close/s"),
    Operation("seq", "big", "sequential MB/s", per_byte=True),
    Operation("rand", "big", "random 4 KiB reads/s"),
)


class Peer(NamedTuple):
    """A server; its *command*, where "MNT" stands for the mount point, mounts and then serves in the foreground."""

    name: str
    command: Sequence[str]


def enter_private_namespace() -> None:
    """Start this program again where its mounts are seen by nobody and end with it; return once that is so."""
    if os.environ.get(INSIDE):
        # What the mount helper writes down of our mounts goes with them.
        RECORDS.mkdir(mode=0o755, exist_ok=True)
        mountapi.mount("bench", os.fspath(RECORDS), "tmpfs", 0, "mode=755")
        return
    if os.geteuid() != 0 or not shutil.which("unshare"):
        sys.exit("bench: needs root and unshare(1), to mount in a namespace of its own")
    os.environ[INSIDE] = "1"
    main = sys.modules["__main__"].__spec__
    assert main is not None, "start it as python -m bench.NAME"
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-m", main.name, *sys.argv[1:]]
    os.execvp(command[0], command)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return the options that every bench has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of each peer (default 15)")
    parser.add_argument("--ms", type=int, default=200, help="length of a round (default 200)")
    parser.add_argument(
        "--cpu", type=int, default=os.cpu_count() or 1, help="core for all, from 1 on (default: the last)"
    )
    return parser


def compiled(directory: Path, source: str, *flags: str) -> Path:
    """Compile bench/*source* into *directory*."""
    program = directory / Path(source).stem
    subprocess.run(["gcc", "-O2", "-Wall", "-o", program, HERE / source, *flags], check=True)
    return program


def pkg_config(package: str) -> list[str]:
    """Return the compiler flags of *package*."""
    words = subprocess.run(["pkg-config", "--cflags", "--libs", package], check=True, capture_output=True, text=True)
    return words.stdout.split()


def _is_mounted(point: Path) -> bool:
    return any(line.split(" ")[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@contextlib.contextmanager
def mounted(peer: Peer, point: Path, cpu: int, *, at_end: Callable[[int], None] = lambda _pid: None) -> Iterator[Path]:
    """Start *peer* on core *cpu*, wait until its mount is there (10 s), and detach it in the end.

    *at_end* is told the server's pid, before that.
    """
    point.mkdir(exist_ok=True)
    words = [str(point) if word == "MNT" else word for word in peer.command]
    server = subprocess.Popen(["taskset", "-c", str(cpu), *words])
    deadline = time.monotonic() + 10
    try:
        while not _is_mounted(point):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: {peer.name} did not mount")
            time.sleep(0.01)
        yield point
        at_end(server.pid)
    finally:
        subprocess.run(["umount", "-l", str(point)], check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(5)
        server.kill()
        server.wait()


def _once(load: Path, operation: Operation, point: Path, options: argparse.Namespace) -> float:
    path = point / operation.path
    words = [str(load), operation.name, str(options.cpu - 1), str(options.ms), str(path)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    count, size, seconds = done.stdout.split()
    return (int(size) / 1e6 if operation.per_byte else int(count)) / float(seconds)


def _round(load: Path, operation: Operation, places: list[Path], options: argparse.Namespace, turn: int) -> list[float]:
    """Measure each of *places* once, every second *turn* from the last to the first: going first must be nobody's gain."""
    order = places if turn % 2 else places[::-1]
    found = {place: _once(load, operation, place, options) for place in order}
    return [found[place] for place in places]


def table(places: dict[str, Path], operations: Sequence[Operation], options: argparse.Namespace, load: Path) -> None:
    """Measure *operations* below each of *places*, print a table; the ratios are the first one's to each other one."""
    ratios = "".join(f"{'ratio to ' + name:>24}" for name in list(places)[1:])
    print(f"{'':30}" + "".join(f"{name:>16}" for name in places) + ratios)
    for operation in operations:
        rounds = [_round(load, operation, list(places.values()), options, turn) for turn in range(options.rounds)]
        medians = "".join(f"{statistics.median(figures):16,.0f}" for figures in zip(*rounds, strict=True))
        ratios = "".join(f"{statistics.median(r[0] / r[i] for r in rounds):24.2f}" for i in range(1, len(places)))
        print(f"{operation.title:30}" + medians + ratios, flush=True)


def compare(
    peers: Sequence[Peer], operations: Sequence[Operation], options: argparse.Namespace, directory: Path
) -> None:
    """Mount *peers* side by side in *directory* and measure them."""
    load = compiled(directory, "load.c")
    with contextlib.ExitStack() as stack:
        places = {
            peer.name: stack.enter_context(mounted(peer, directory / f"mnt{i}", options.cpu - 1))
            for i, peer in enumerate(peers)
        }
        table(places, operations, options, load)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory for programs and mount points. Emptied by name, never as a tree: a mount may still be in it."""
    directory = Path(tempfile.mkdtemp(prefix="fuservice-bench-"))
    try:
        yield directory
    finally:
        for path in directory.iterdir():
            path.rmdir() if path.is_dir() else path.unlink()
        directory.rmdir()
