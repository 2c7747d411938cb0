"""A driver that is taken over by its image: what is in the image is Python, and it executes it, before the mount and at each read.

``python -m tests.prove.takenover listen DIRECTORY``, or ``warm …``, which the listener starts, or ``unit TYPE INSTANCE``, as systemd
would. Listener, warm process, cage and engine are the real ones. The attacker has what a driver's process has in memory, and the numbers of all system calls.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fuservice.cli import unit
from fuservice.drivers.memtree import Memtree
from fuservice.fuse import watch
from fuservice.launch import warm
from fuservice.launch.activator import Activator
from fuservice.launch.child import Contained
from fuservice.launch.state import States
from fuservice.linux.notify import Manager
from fuservice.linux.rawsyscall import call
from fuservice.prove.network import inet_address, unix_address
from fuservice.service import Driver, ImageArgument, service_main
from tests.support.capabilities import REPOSITORY

if TYPE_CHECKING:
    from fuservice.fuse.filesystem import Filesystem
    from fuservice.linux.fds import Fd

NAME = "takenover"
PROGRAM = [
    sys.executable, "-c",
    f"import sys; sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / 'src')]}; from tests.prove.takenover import main; main()",
]  # fmt: skip
AT_READ = "# at read\n"
TOOLS = {module.__name__: module for module in (errno, mmap, os, signal)} | {
    "call": call, "inet_address": inet_address, "unix_address": unix_address
}  # fmt: skip


class Possessed(Memtree):
    """A tree with one file, whose content is what the attacker's code leaves in ``loot``."""

    def __init__(self, code: str) -> None:
        super().__init__({"loot": b"?" * 4096})
        self._code = code

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> memoryview:
        """Run the attacker's code."""
        return memoryview(execute(self._code).ljust(4096, b"\0"))[offset:]


def execute(code: str) -> bytes:
    """Run *code*; return its loot, or what became of it."""
    names: dict[str, object] = {**TOOLS, "loot": b"nothing"}
    try:
        exec(code, names)
    except (OSError, MemoryError) as error:
        return f"refused: {error!r}".encode()
    loot = names["loot"]
    return loot if isinstance(loot, bytes) else repr(loot).encode()


class TakenOver(Driver):
    """The driver."""

    name = NAME
    image = ImageArgument(is_source=True)

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        """Run the first part of the image at once, and keep the second one."""
        assert image is not None
        before, _, at_read = os.pread(image.fileno(), 65_536, 0).decode().partition(AT_READ)
        self.log(f"loot: {execute(before).decode(errors='replace')}")
        return Possessed(at_read)


def load(_name: str) -> Contained:
    """Return the driver as warm processes know it."""
    return Contained(lambda asked: service_main(TakenOver, [asked]), prepare=watch.arm, syscalls=TakenOver.syscalls)


def listen(directory: str) -> None:
    """Listen in *directory*."""
    activator = Activator(
        {NAME: [*PROGRAM, "warm", *warm.arguments(NAME, (), 0)]}, directory, facts={}, states=States(""),
        log=lambda level, line: print(level, line, file=sys.stderr, flush=True), manager=Manager({}),
    )  # fmt: skip
    activator.run(lambda _paths: print("ready", flush=True))


def main() -> None:
    """Be the listener, or its warm process, or what a unit starts."""
    if sys.argv[1] == "listen":
        listen(sys.argv[2])
    elif sys.argv[1] == "unit":
        sys.exit(unit.serve(NAME, sys.argv[3], load(NAME)))
    else:
        warm.run(sys.argv[2:], load)


if __name__ == "__main__":
    main()
