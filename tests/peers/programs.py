"""The programs under test, started the way their callers start them, and how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.capabilities import REPOSITORY

PATIENCE = 20.0
SOURCES = os.fspath(REPOSITORY / "src")

#: The mount helper as its launcher starts it, but with an argv[0] of the test's choice.
HELPER = (
    f"import sys; sys.path.append({SOURCES!r}); del sys.argv[0]\n"
    "from fuservice.cli.fuservicemount import main\n"
    "sys.exit(main(sys.argv))"
)

#: An ordinary user's helper: all it has is the right to mount.
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
MAY_MOUNT = ("--inh-caps=+sys_admin", "--ambient-caps=+sys_admin")


class Ended(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard error."""
        return self.stderr.splitlines()


class Program:
    """A process under test. Leaving the ``with`` kills it if it still runs, and always waits for it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(environment or {})},
            pass_fds=pass_fds,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, without a chance to clean up."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self, seconds: float = PATIENCE) -> Ended:
        """Return how it ended; TimeoutExpired where it does not within *seconds*."""
        out, err = self._process.communicate(timeout=seconds)
        return Ended(self._process.returncode, os.fsdecode(out), os.fsdecode(err))


def helper_command(argv: Sequence[str]) -> list[str]:
    """Return the command that runs our mount helper with *argv*, the program's name first."""
    return [sys.executable, "-I", "-S", "-c", HELPER, *argv]


def caller(uid: int, *, may_mount: bool) -> list[str]:
    """Return what goes before a command so that *uid* runs it: root as it is, or nobody with the right to mount."""
    if uid == 0:
        return []
    return [*AS_NOBODY, *(MAY_MOUNT if may_mount else ())]
