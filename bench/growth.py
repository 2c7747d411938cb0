"""Whether a listener grows: many rounds of connect, serve, end; what it holds before and after, and how long a round takes.

``python -m bench.growth [--rounds N]``, as root. The servers are memtree's, in their whole cage; each is told
nonsense, and ends. With --mount each round is a mount by fuservicemount and an unmount.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rounds import enter_private_namespace, scratch
from fuservice.launch import state
from fuservice.linux.fdsockets import FdSeqPacket
from tests.support import kernel
from tests.support.processes import descendants, status

PROGRAMS = Path(sys.executable).parent


def holds(listener: int) -> dict[str, int]:
    """Return what process *listener* holds, once its servers have ended: numbers that must not grow."""
    deadline = time.monotonic() + 10
    while len(descendants(listener)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    warm = descendants(listener)
    found = {"processes": 1 + len(warm), "records": len(os.listdir(state.directory()))}
    for name, pid in (("listener", listener), *(("warm process", pid) for pid in warm)):
        found[f"{name}: descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        found[f"{name}: KiB of its own"] = int(status(pid)["RssAnon"].split()[0])
    return found


def connect(sockets: Path, _point: Path) -> None:
    """Say what no helper says; the server hangs up."""
    with FdSeqPacket.connect(f"{sockets}/memtree", 10.0) as connection:
        connection.deadline = time.monotonic() + 10
        connection.send(b"nonsense")
        connection.receive(1)


def mount(sockets: Path, point: Path) -> None:
    """Mount and unmount."""
    subprocess.run([PROGRAMS / "fuservicemount", point, "-t", "memtree", f"--socket-dir={sockets}"], check=True)
    kernel.umount2(os.fspath(point))


@contextlib.contextmanager
def listening(words: list[str]) -> Iterator[int]:
    """Have a listener; give its process number once it listens."""
    with subprocess.Popen(
        [PROGRAMS / "fuservice", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
        finally:
            process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10_000, help="rounds (default 10000)")
    parser.add_argument("--mount", action="store_true", help="mount and unmount in each round")
    options = parser.parse_args()
    enter_private_namespace()
    act = mount if options.mount else connect
    with scratch() as place:
        sockets, point = place / "sockets", place / "mnt"
        point.mkdir()
        with listening(["listen", "memtree", f"--socket-dir={sockets}"]) as listener:
            for _ in range(200):  # what is allocated once is allocated now
                act(sockets, point)
            before, took = holds(listener), []
            for _ in range(options.rounds):
                began = time.perf_counter()
                act(sockets, point)
                took.append((time.perf_counter() - began) * 1000)
            after = holds(listener)
    print(f"{options.rounds} rounds; median {statistics.median(took):.1f} ms, longest {max(took):.0f} ms")
    print(f"{'':32}{'before':>10}{'after':>10}")
    for name, value in before.items():
        print(f"{name:32}{value:10}{after[name]:10}")


if __name__ == "__main__":
    main()
