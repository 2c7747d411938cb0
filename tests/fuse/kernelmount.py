"""A filesystem of ours, served by a forked child and mounted by mount(2), for as long as a ``with`` lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fuservice.fuse.budget import Budgets
from fuservice.fuse.codec import Policy
from fuservice.fuse.session import Session
from fuservice.fuse.watch import Watch
from fuservice.linux import threads
from tests.support import kernel
from tests.support.leaks import open_descriptors
from tests.support.mounts import CONNECTIONS, detach_all, mounted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from fuservice.fuse.filesystem import Filesystem

MS_NOSUID_NODEV = 0x2 | 0x4
ENDED_WELL, LEAKED, RAISED = 0, 3, 4


class Served:
    """A mount at *point*, and the process *pid* that serves it and writes its log to *log_path*."""

    def __init__(self, point: Path, pid: int, log_path: Path) -> None:
        self.point, self.pid, self.log_path = point, pid, log_path
        self.status: int | None = None

    def log(self) -> list[str]:
        return self.log_path.read_text().splitlines()

    def abort(self) -> None:
        """Abort the connection: each request that waits, and each later one, fails."""
        mount = mounted(self.point)
        assert mount is not None
        (CONNECTIONS / mount.device.split(":")[1] / "abort").write_text("1")

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def wait(self) -> int:
        """Return the server's exit status, once it has ended by itself."""
        wait_until(self.ended, "the end of the server")
        assert self.status is not None
        return self.status

    def stop(self) -> None:
        detach_all(self.point)
        with contextlib.suppress(AssertionError):
            wait_until(self.ended, "the end of the server", 2)
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def _serve(fd: int, filesystem: Filesystem, policy: Policy, budgets: Budgets, log_path: Path, spare: int) -> int:
    before = set(open_descriptors())
    threads.start(spare)
    with log_path.open("a", buffering=1) as log:
        session = Session(
            fd, filesystem, log=lambda line: print(line, file=log), policy=policy, budgets=budgets, spare=threads.take()
        )
        with Watch(budgets, budgets.time, interrupt=threads.interrupt):
            session.run()
    return LEAKED if set(open_descriptors()) - before else ENDED_WELL


@contextlib.contextmanager
def served(
    point: Path,
    filesystem: Filesystem,
    policy: Policy | None = None,
    device: str = "",
    budgets: Budgets | None = None,
    options: str = "",
    spare: int = 0,
    flags: int = 0,
) -> Iterator[Served]:
    """Mount *filesystem* on the directory *point* (as fuseblk of *device*); on leaving, detach it and end its server.

    The server has *spare* threads beside its main one; *flags* are more of mount(2)'s.
    """
    log_path = point.with_name(point.name + ".log")
    log_path.touch()
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0{options}"
    kernel.mount(
        device or "memtree", os.fspath(point), "fuseblk" if device else "fuse", MS_NOSUID_NODEV | flags, options
    )
    pid = os.fork()
    if not pid:
        status = RAISED
        try:
            status = _serve(fd, filesystem, policy or Policy(), budgets or Budgets(), log_path, spare)
        except BaseException:  # noqa: BLE001 - a forked child must not return into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(fd)  # with a copy of it in this process the mount would outlive its server, and we would wait for ever
    mount = Served(point, pid, log_path)
    try:
        yield mount
    finally:
        mount.stop()
