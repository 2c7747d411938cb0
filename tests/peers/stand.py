"""A place for one conversation with our helper, and a look afterwards at what it left: nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers import wire
from tests.peers.programs import Ended, Program, helper_command
from tests.peers.server import Listening, Opening, open_conversation
from tests.support import kernel
from tests.support.mounts import Mount, detach_all, mounts_at_or_below

if TYPE_CHECKING:
    from tests.peers.wire import Wire

SAYS = "fuservicemount: "
FAILED = SAYS + "fuse server failed mount, check dmesg/logs for details."
NO_MOUNT = SAYS + "fuse server said goodbye without mounting anything."
GONE = SAYS + "fuse server exited without saying goodbye!"
SILENT = SAYS + "fuse server said nothing for too long: giving up"

#: What an attack is: packets, each with the answer that it gets; None where the conversation is over.
Step = tuple[bytes, bytes | None]


class Stand:
    """A directory with an image, a mount point and a socket; /run is a tmpfs that nobody else sees."""

    def __init__(self, place: Path) -> None:
        self.place, self.sockets = place, place / "sockets"
        self.image, self.point, self.secret = place / "image", place / "mnt", place / "secret"
        self.sockets.mkdir()
        self.point.mkdir()
        self.image.write_bytes(b"image\n".ljust(8192, b"\0"))
        self.secret.write_bytes(b"secret\n")
        #: What should lie here and in /run in the end: nothing more or less than now.
        self.expected = self.files()

    def words(self, *more: str, source: str | Path | None = None, point: str | Path | None = None) -> list[str]:
        """Return the helper's command line."""
        return ["fuservicemount", str(source or self.image), str(point or self.point), "-t", "x",
                f"--socket-dir={self.sockets}", "--timeout=5", *more]  # fmt: skip

    def mounted(self) -> list[Mount]:
        """Return what is mounted on the stand."""
        return mounts_at_or_below(self.place)

    def files(self) -> dict[str, tuple[int, int, int]]:
        """Return what lies on the stand and in /run, with size, mode and change time in nanoseconds."""
        found = {}
        for top in (self.place, Path("/run")):
            for directory, names, others in os.walk(top):
                names[:] = [name for name in names if not os.path.ismount(f"{directory}/{name}")]
                for name in (*names, *others):
                    status = os.lstat(f"{directory}/{name}")
                    if directory != os.fspath(self.sockets) and name != "sockets":
                        found[f"{directory}/{name}"] = (status.st_size, status.st_mode, status.st_ctime_ns)
        return found

    @contextlib.contextmanager
    def conversation(self, *more: str, command: Sequence[str] | None = None, **places: str | Path) -> Iterator[Talk]:
        """Start the helper (or *command*) and accept its connection; it is killed if it still runs at the end."""
        words = command or helper_command(self.words(*more, **places))
        with (
            Listening(self.sockets) as listening,
            Program(words) as program,
            listening.accept() as conversation,
            Talk(self, program, conversation) as talk,
        ):
            listening.close()  # one service, one connection
            yield talk

    def detach(self) -> None:
        """Detach everything that is mounted here."""
        detach_all(self.place)

    def settle(self) -> Mount:
        """Take away the one mount that was made, and what was recorded of it; return what it was."""
        (mount,) = self.mounted()
        self.detach()
        for record in os.scandir("/run/fuservice/mounts"):
            os.unlink(record.path)  # noqa: PTH108
        os.rmdir("/run/fuservice/mounts")  # noqa: PTH106
        os.rmdir("/run/fuservice")  # noqa: PTH106
        return mount


class Talk:
    """One conversation, with the helper as the other side."""

    def __init__(self, stand: Stand, program: Program, conversation: Wire) -> None:
        self.stand, self.program, self.wire = stand, program, conversation
        self.opening: Opening | None = None

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def open(self) -> Talk:
        """Go through an honest opening."""
        self.opening = open_conversation(self.wire)
        return self

    def play(self, steps: Sequence[Step]) -> None:
        """Send each packet, and assert its answer."""
        for number, (packet, expected) in enumerate(steps):
            self.wire.send(packet)
            answer = self.wire.receive()
            answer.close()
            assert answer.data == (expected or b""), f"step {number}: {packet[:40]!r}"

    def agree(self, *, doit: int | None = 6, source: str = "source") -> None:
        """Do all that an honest server does up to the mount; *doit* are its flags."""
        steps: list[Step] = [
            (wire.type_(), wire.repl()), (wire.name(source), wire.repl()), (wire.mntp(self.stand.point), wire.repl()),
        ]  # fmt: skip
        self.play(steps)
        if doit is not None:
            self.play([(wire.doit(doit), wire.repl())])

    def hang_up(self) -> None:
        """Be gone, as if killed: every descriptor of the conversation is closed."""
        self.wire.close()
        if self.opening is not None:
            self.opening.close()
            self.opening = None

    def ended(self, seconds: float = 10.0) -> Ended:
        """Return how the helper ended."""
        return self.program.ended(seconds)

    def goodbye(self, code: int = 1) -> Ended:
        """Say goodbye, and return how the helper ended."""
        self.wire.send(wire.byee(code))
        return self.ended()


@contextlib.contextmanager
def own_run() -> Iterator[None]:
    """Have an empty /run of our own: the helper keeps records there."""
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    try:
        yield
    finally:
        kernel.umount2("/run", kernel.MNT_DETACH)
