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

RUNTIME_UNITS: Final = "/run/systemd/system"
PATIENCE: Final = 20.0  # seconds for systemd to start a unit, or to see that one has ended
_SERVER: Final = re.compile(r"^(ExecStart=.* -m )fuservice\.cli\.unit (\S+ %i)$", re.MULTILINE)
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

    def __init__(self, name: str) -> None:
        """UsageError where *name* is no template of ours, SystemCallError where systemd does not do as it is told."""
        text, count = _SERVER.subn(r"\1fuservice.cli.probe --unit \2", _systemctl("cat", name))
        if count != 1:
            raise UsageError(
                f"prove: {name}: expected a unit that `fuservice units' has made, like fuservice-ext4@.service"
            )
        self._name = f"fuservice-prove-{os.getpid()}"
        self._path, log = f"/run/{self._name}", f"/run/{self._name}.log"
        # Written by who looks after a server, as in a journal. Not a file: of those, servers may write none.
        os.mkfifo(log, 0o600)
        self._log = Fd(os.open(log, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        text = _LOG.sub(rf"Standard\1=append:{log}", text)
        self._files = {
            f"{RUNTIME_UNITS}/{self._name}.socket": _SOCKET.format(path=self._path),
            f"{RUNTIME_UNITS}/{self._name}@.service": text,
        }
        try:
            os.makedirs(RUNTIME_UNITS, exist_ok=True)  # noqa: PTH103
            for path, content in self._files.items():
                with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
                    file.write(content)
            _systemctl("daemon-reload")
            _systemctl("start", f"{self._name}.socket")
        except BaseException:
            self.close()
            raise

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
        return Instance(socket, Lines(Fd(os.dup(self._log.fileno()))), new.pop())

    def _instances(self) -> set[str]:
        listed = _systemctl("list-units", "--all", "--plain", "--no-legend", f"{self._name}@*.service")
        return {line.split()[0] for line in listed.splitlines()}

    def close(self) -> None:
        _systemctl("stop", f"{self._name}.socket", f"{self._name}@*.service", check=False)
        self._log.close()
        for path in (*self._files, f"{self._path}.log"):
            if os.path.exists(path):  # noqa: PTH110
                os.unlink(path)  # noqa: PTH108
        _systemctl("reset-failed", f"{self._name}*", check=False)
        _systemctl("daemon-reload")


class Instance(Supervised):
    """A server in a unit of its own."""

    def __init__(self, socket: SeqPacket, lines: Lines, unit: str) -> None:
        self._unit = unit
        super().__init__(socket, lines)
        # The log has the server's number in its own list of processes, if it has one (PrivatePIDs=).
        supervisor = int(_systemctl("show", "--property=MainPID", "--value", unit))
        with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="ascii") as file:  # noqa: PTH123
            self.pid = int(file.read())

    def close(self) -> None:
        super().close()
        self._lines.close()
        _systemctl("stop", self._unit, check=False)


def _systemctl(*words: str, check: bool = True) -> str:
    """Return what systemctl(1) prints; SystemCallError with its complaint where it fails, and *check*."""
    try:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemCallError(f"systemctl: {error.strerror}") from None
    if check and done.returncode != 0:
        raise SystemCallError(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
