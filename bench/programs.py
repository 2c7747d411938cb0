"""find, tar and grep over a tree of 30,000 files, with everything that each filesystem lets the kernel keep.

``PYTHONPATH=src python -m bench.programs`` (root, e2fsprogs, fuse2fs, loop devices): our ext4, fuse2fs, and the kernel's own ext4 on a
loop device, one image. Each round mounts anew, runs a program, and runs it again: "first" is with empty caches of the mount,
"again" with what the first run has left in them. The image is in the page cache for all.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.rounds import Peer, arguments, enter_private_namespace, mounted, scratch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

DIRECTORIES, FILES = 100, 300  # files of each directory
#: Title → a shell's words, with MNT for the mount point. tar(1) reads nothing if it sees that nobody wants it.
PROGRAMS = {
    "find": "find MNT >/dev/null",
    "find -size": "find MNT -size +1000 >/dev/null",
    "tar | cat": "tar cf - -C MNT . | cat >/dev/null",
    "grep -r": "grep -r nowhere-in-it MNT; [ $? = 1 ]",
}
OURS, FUSE2FS, KERNEL = "fuservice", "fuse2fs", "kernel"


def make_image(directory: Path) -> Path:
    """Make an ext4 image as mkfs.ext4 makes it, with files of 0 to 16 KiB; the tree is gone afterwards."""
    tree, image, chance = directory / "tree", directory / "image", random.Random(1)
    for d in range(DIRECTORIES):
        (tree / f"directory{d}").mkdir(parents=True)
        for f in range(FILES):
            (tree / f"directory{d}" / f"file{f}").write_bytes(
                chance.randbytes(chance.choice((0, 100, 1000, 4000, 16_000)))
            )
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, image, "512M"], check=True, stdout=subprocess.DEVNULL)
    for path in tree.rglob("file*"):
        path.unlink()
    for path in tree.iterdir():
        path.rmdir()
    return image


def timed(words: str, point: Path, cpu: int) -> float:
    """Return the seconds that the shell takes for *words*, on core *cpu*."""
    start = time.monotonic()
    subprocess.run(["taskset", "-c", str(cpu), "sh", "-c", words.replace("MNT", str(point))], check=True)
    return time.monotonic() - start


@contextlib.contextmanager
def _on_loop(image: Path, point: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "ext4", "-o", "ro,loop,noload", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


class Measured:
    """What the rounds have found: seconds by title and peer, and each server's peak of memory."""

    def __init__(self, directory: Path, image: Path, cpu: int) -> None:
        self.times: dict[tuple[str, str], list[float]] = {}
        self.peaks: dict[str, int] = {}
        self._points, self._image, self._cpu = directory, image, cpu
        self._peers = [
            Peer(OURS, [sys.executable, "-m", "bench.serve", "MNT", "ext4-cached", str(image)]),
            Peer(FUSE2FS, ["fuse2fs", str(image), "MNT", "-f", "-s", "-o", "ro"]),
        ]

    def round(self, title: str, words: str) -> None:
        """Run *words* twice on a fresh mount of each peer."""
        for peer in self._peers:
            tell = partial(self._peak, peer.name)
            with mounted(peer, self._points / peer.name, self._cpu, at_end=tell) as point:
                self._twice(title, words, peer.name, point)
        point = self._points / KERNEL
        point.mkdir(exist_ok=True)
        with _on_loop(self._image, point):
            self._twice(title, words, KERNEL, point)

    def _twice(self, title: str, words: str, name: str, point: Path) -> None:
        for when in ("first", "again"):
            self.times.setdefault((f"{title}, {when}", name), []).append(timed(words, point, self._cpu))

    def _peak(self, name: str, pid: int) -> None:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        self.peaks[name] = max(self.peaks.get(name, 0), int(status["VmHWM"].split()[0]))

    def table(self) -> None:
        """Print medians in milliseconds, and the median of the rounds' ratios: how many times as long as others we take."""
        print(f"{'ms':24}{OURS:>12}{FUSE2FS:>12}{KERNEL:>12}{'of ' + FUSE2FS:>14}{'of ' + KERNEL:>14}")
        for title in dict.fromkeys(title for title, _ in self.times):
            ours, *others = (self.times[title, name] for name in (OURS, FUSE2FS, KERNEL))
            medians = "".join(f"{statistics.median(times) * 1000:12.0f}" for times in (ours, *others))
            ratios = "".join(f"{statistics.median(a / b for a, b in zip(ours, o, strict=True)):14.2f}" for o in others)
            print(f"{title:24}{medians}{ratios}", flush=True)
        print("peak of memory:", ", ".join(f"{name} {peak / 1024:.0f} MiB" for name, peak in self.peaks.items()))


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=5)
    options: argparse.Namespace = parser.parse_args()
    enter_private_namespace()
    with scratch() as directory:
        image = make_image(directory)
        measured = Measured(directory, image, options.cpu - 1)
        for _ in range(options.rounds):
            for title, words in PROGRAMS.items():
                measured.round(title, words)
        measured.table()


if __name__ == "__main__":
    main()
