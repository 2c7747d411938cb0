"""A listener as a program, and how a test talks to it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from fuservice.linux.fdsockets import FdSeqPacket
from tests.support.processes import Program, servers, warm_processes
from tests.support.waiting import wait_until

PATIENCE = 5.0


class Listening:
    """A listener that runs."""

    def __init__(self, command: Sequence[str | Path], log: Path, directory: Path) -> None:
        self.program = Program(command, log)
        self.directory = directory

    def wait_for(self, words: str) -> str:
        """Wait until the listener has printed *words*; return all that it printed."""
        wait_until(lambda: words in self.program.said() or self.program.ended(), f"`{words}' in its output", 15.0)
        assert words in self.program.said(), self.program.said()
        return self.program.said()

    def connect(self, name: str) -> FdSeqPacket:
        """Return a connection to the service *name*, with a deadline."""
        connection = FdSeqPacket.connect(f"{self.directory}/{name}", PATIENCE)
        connection.deadline = time.monotonic() + PATIENCE
        return connection

    def ask(self, name: str) -> bytes:
        """Return the first packet of the service *name*, after which the connection is closed."""
        with self.connect(name) as connection:
            return connection.receive(65_536)

    def warm(self) -> list[int]:
        """Return the pids of the warm processes."""
        return warm_processes(self.program.pid)

    def servers(self) -> list[int]:
        """Return the pids of the servers."""
        return servers(self.program.pid)

    def wait_for_servers(self, count: int) -> None:
        """Wait until there are *count* servers."""
        wait_until(lambda: len(self.servers()) == count, f"{count} servers, not {len(self.servers())}")

    def descriptors(self) -> list[str]:
        """Return what the listener has open."""
        directory = f"/proc/{self.program.pid}/fd"
        return sorted(os.readlink(f"{directory}/{name}").partition(":")[0] for name in os.listdir(directory))  # noqa: PTH115

    def cpu(self) -> float:
        """Return the seconds of processor time that the listener itself has used (proc_pid_stat(5), fields 14 and 15)."""
        fields = Path(f"/proc/{self.program.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        """Send a signal to the listener, and to nobody else."""
        os.kill(self.program.pid, number)
