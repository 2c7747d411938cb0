"""Programs that run beside a test: in a process group of their own, ended by pid, and never outliving us."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.waiting import holds_within

#: What ps(1) calls a listener's warm processes, before and after they have begun.
WARM = {"python", "python3", "fuservice-warm"}


class Program:
    """A program in the background, its output in a file. Dies with this process, even if this process is killed."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self.log = log
        words = ["setpriv", "--pdeathsig=KILL", "--", *(os.fspath(word) for word in command)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0
            )

    @property
    def pid(self) -> int:
        """The program's pid."""
        return self._process.pid

    def said(self) -> str:
        """Return what the program has printed so far."""
        return self.log.read_text(errors="replace")

    def ended(self) -> bool:
        """Return whether the program has ended. It stays a zombie until stop(), so its pid and group remain its own."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def stop(self, seconds: float = 5.0) -> int:
        """Ask the program to end, then insist; return its exit code, negative if it took a signal to end it."""
        if self._process.returncode is None:
            if not self.ended():
                os.kill(self.pid, signal.SIGTERM)
            holds_within(seconds, self.ended)
            os.killpg(self.pid, signal.SIGKILL)  # itself, if it would not, and what it left in its group
        return self._process.wait(seconds)


def status(pid: int) -> dict[str, str]:
    """Return the lines of /proc/PID/status: proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants of process *pid*, children before grandchildren."""
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop(0)
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                new = list(map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split()))
                found += new
                todo += new
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def servers(pid: int) -> list[int]:
    """Return the pids of the servers of listener *pid*: its descendants, but for those from which servers are cloned."""
    return [child for child in descendants(pid) if _name(child) not in WARM]


def warm_processes(pid: int) -> list[int]:
    """Return the pids of the warm processes of listener *pid* that have imported their drivers."""
    return [child for child in descendants(pid) if _name(child) == "fuservice-warm"]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "python"
