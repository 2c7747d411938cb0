"""A helper on request: it starts one of our servers as an activator would, and then says what the test tells it to say."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tests.peers import wire
from tests.peers.programs import SOURCES, Program

if TYPE_CHECKING:
    from tests.peers.wire import Wire

#: A service of ours, started with its connection on the descriptor that is its first word.
SERVICE = (
    f"import os, sys; sys.path.append({SOURCES!r})\n"
    "os.dup2(int(sys.argv.pop(1)), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
    "from fuservice.drivers.{} import main\n"
    "sys.exit(main())"
)


class Service:
    """A server process, and our end of its connection."""

    def __init__(self, program: Program, conversation: Wire) -> None:
        self.program, self.wire = program, conversation

    def give(self, name: str, fds: Sequence[int], error: int = 0) -> None:
        """Send the file *name* with copies of *fds*, which are closed here."""
        try:
            self.wire.send(wire.file(error, name), fds)
        finally:
            for fd in fds:
                os.close(fd)

    def open(self, *words: str) -> None:
        """Greet, and give argv and fuse device, as an honest helper does."""
        self.greet()
        self.give("argv", [argv_file(wire.argv_file(words))])
        self.give("fusedev", [os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)])

    def greet(self) -> None:
        """Exchange hellos."""
        self.wire.send(wire.saft())
        assert self.wire.receive(20).data == wire.last()

    def answer(self, *answers: bytes) -> list[str]:
        """Answer the next commands with these; return the commands' magics."""
        heard = []
        for answer in answers:
            heard.append(self.wire.receive().data[:4].decode())
            self.wire.send(answer)
        return heard


def argv_file(content: bytes) -> int:
    """Return a memfd that holds *content*."""
    fd = os.memfd_create("fuse service argv")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


@contextlib.contextmanager
def service(driver: str = "memtree") -> Iterator[Service]:
    """Have a server of *driver*; it is killed if it still runs at the end."""
    ours, theirs = wire.pair()
    with ours, theirs:
        command = [sys.executable, "-I", "-S", "-c", SERVICE.format(driver), str(theirs.fileno())]
        with Program(command, pass_fds=[theirs.fileno()]) as program:
            theirs.close()
            yield Service(program, ours)
