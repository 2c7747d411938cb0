"""Starts by systemd: a copy of a unit of `fuservice units`, for as long as the proof takes, with the probe for the server."""

from __future__ import annotations

import os
import re
import subprocess
import time
from contextlib import suppress

from fuservice.errors import SystemCallError, UsageError
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.prove.starts import Start
from fuservice.prove.supervised import Lines, Supervised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.linux.sockets import SeqPacket

PATIENCE: Final = 20.0  # seconds for systemd to start a unit, or to see that one has ended
_AFTER: Final = re.compile(r"^ExecStopPost=.*\n", re.MULTILINE)  # nothing is mounted
_LOG: Final = re.compile(r"^Standard(Output|Error)=journal$", re.MULTILINE)
_SOCKET: Final = """[Unit]
DefaultDependencies=no
[Socket]
ListenSequentialPacket={path}
Accept=yes
SocketMode=0600
RemoveOnStop=yes
MaxConnections=256
TriggerLimitIntervalSec=0
"""


class Unit(Start):
    """The template unit *name*, copied, with its log coming to us; systemd must run, and we be root."""

    who: tuple[str, ...] = ()  # whose manager, for systemctl(1)
    server, probe = r"fuservice\.cli\.unit (\S+ %i)", "fuservice.cli.probe --unit"

    def __init__(self, name: str, directory: str = "/run", units: str = "/run/systemd/system") -> None:
        """UsageError where *name* is no template of ours, SystemCallError where systemd does not do as it is told.

        The socket is made in *directory*, the copy in *units*.
        """
        command = re.compile(rf"^(ExecStart=.* -m ){self.server}$", re.MULTILINE)
        text, count = command.subn(rf"\1{self.probe} \2", self.systemctl("cat", name))
        if count != 1:
            raise UsageError(
                f"prove: {name}: expected a unit that `fuservice units' has made, like fuservice-ext4@.service"
            )
        self._name = f"fuservice-prove-{os.getpid()}"
        self._path, log = f"{directory}/{self._name}", f"{directory}/{self._name}.log"
        # Written by who looks after a server, as in a journal. Not a file: of those, servers may write none.
        os.mkfifo(log, 0o600)
        self._log = Fd(os.open(log, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        text = _AFTER.sub("", _LOG.sub(rf"Standard\1=append:{log}", text))
        self._files = {
            f"{units}/{self._name}.socket": _SOCKET.format(path=self._path),
            f"{units}/{self._name}@.service": text,
        }
        try:
            os.makedirs(units, exist_ok=True)  # noqa: PTH103
            for path, content in self._files.items():
                with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
                    file.write(content)
            self.systemctl("daemon-reload")
            self.systemctl("start", f"{self._name}.socket")
        except BaseException:
            self.close()
            raise

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Return what systemctl(1) prints; SystemCallError with its complaint where it fails, and *check*."""
        try:
            done = subprocess.run(["systemctl", *self.who, *words], capture_output=True, text=True, check=False)
        except OSError as error:
            raise SystemCallError(f"systemctl: {error.strerror}") from None
        if check and done.returncode != 0:
            raise SystemCallError(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def connect(self) -> Instance:
        with suppress(BlockingIOError):  # the last words of one that has ended: numbers may be used again
            while os.read(self._log.fileno(), 65_536):
                pass
        known = self._instances()
        socket = FdSeqPacket.connect(self._path, PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not (new := self._instances() - known):
            if time.monotonic() > deadline:
                socket.close()
                raise SystemCallError(f"prove: systemd has started no {self._name}@.service")
        return Instance(self, socket, Lines(Fd(os.dup(self._log.fileno()))), new.pop())

    def _instances(self) -> set[str]:
        listed = self.systemctl("list-units", "--all", "--plain", "--no-legend", f"{self._name}@*.service")
        return {line.split()[0] for line in listed.splitlines()}

    def close(self) -> None:
        self.systemctl("stop", f"{self._name}.socket", f"{self._name}@*.service", check=False)
        self._log.close()
        for path in (*self._files, f"{self._path}.log"):
            if os.path.exists(path):  # noqa: PTH110
                os.unlink(path)  # noqa: PTH108
        self.systemctl("reset-failed", f"{self._name}*", check=False)
        self.systemctl("daemon-reload")


class UserUnit(Unit):
    """The same of a user's own manager, and we be that user."""

    who = ("--user",)
    server, probe = r"fuservice\.cli\.main serve (\S+)", "fuservice.cli.probe --serve"

    def __init__(self, name: str, directory: str) -> None:
        """*directory* is the user's XDG_RUNTIME_DIR."""
        super().__init__(name, directory, f"{directory}/systemd/user")


class Instance(Supervised):
    """A server in a unit of its own."""

    def __init__(self, unit: Unit, socket: SeqPacket, lines: Lines, name: str) -> None:
        self._unit, self._name = unit, name
        super().__init__(socket, lines)
        # The log has the server's number in its own list of processes, if it has one (PrivatePIDs=).
        supervisor = int(unit.systemctl("show", "--property=MainPID", "--value", name))
        with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="ascii") as file:  # noqa: PTH123
            self.pid = int(file.read())

    def close(self) -> None:
        super().close()
        self._lines.close()
        self._unit.systemctl("stop", self._name, check=False)
