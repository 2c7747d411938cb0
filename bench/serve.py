"""Mount one of our filesystems and serve it, until it is unmounted: the other end of a bench.

``python -m bench.serve MOUNTPOINT memtree``, ``… ext4 IMAGE`` (of which the kernel may keep nothing), or ``… ext4-cached IMAGE``.
Needs root; mounts in the namespace it is started in.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fuservice.drivers.ext4 import Ext4
from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.drivers.memtree import Memtree
from fuservice.fuse.filesystem import FOREVER
from fuservice.fuse.session import Session
from fuservice.fuse.watch import Watch
from fuservice.linux import mountapi, threads

if TYPE_CHECKING:
    from fuservice.fuse.filesystem import Filesystem

BIG, FILES, SMALL = 256 << 20, 1000, 4096


def memtree() -> Memtree:
    """Return the tree that bench/peer.c has."""
    small = b"x" * SMALL
    return Memtree({"small": {f"f{i:04}": bytes(bytearray(small)) for i in range(FILES)}, "big": b"x" * BIG})


def ext4(image: str, *, cached: bool) -> Filesystem:
    """Return the filesystem of *image*, of which the kernel may keep names and attributes, or none."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    return Ext4Filesystem(fd, timeout_ns=FOREVER if cached else 0)


def main() -> None:
    """Serve what the command line names."""
    point, kind, *rest = sys.argv[1:]
    filesystem = memtree() if kind == "memtree" else ext4(*rest, cached=kind == "ext4-cached")
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mountapi.mount(kind, point, "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")
    threads.start(0 if kind == "memtree" else Ext4.threads)
    session = Session(fd, filesystem, log=lambda line: print(line, file=sys.stderr), spare=threads.take())
    with Watch(session.budgets, session.budgets.time, interrupt=threads.interrupt):
        session.run()


if __name__ == "__main__":
    main()
