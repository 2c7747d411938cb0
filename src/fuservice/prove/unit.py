"""Starts by systemd: a copy of a unit of `fuservice units`, for as long as the proof takes, with the probe for the server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

from fuservice.errors import SystemCallError, UsageError
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.prove.probe import DIED, KILLED
from fuservice.prove.starts import Served, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.linux.sockets import SeqPacket

RUNTIME_UNITS: Final = "/run/systemd/system"
PATIENCE: Final = 20.0  # seconds for systemd to start a unit, or to see that one has ended
_SERVER: Final = re.compile(r"^(ExecStart=.* -m )fuservice\.cli\.unit (\S+ %i)$", re.MULTILINE)
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
    """The template unit *name*, copied; systemd must run, and we be root."""

    supervised = False  # the journal has the log, and its own limits

    def __init__(self, name: str) -> None:
        """UsageError where *name* is no template of ours, SystemCallError where systemd does not do as it is told."""
        text, count = _SERVER.subn(r"\1fuservice.cli.probe --unit \2", _systemctl("cat", name))
        if count != 1:
            raise UsageError(
                f"prove: {name}: expected a unit that `fuservice units' has made, like fuservice-ext4@.service"
            )
        self._name = f"fuservice-prove-{os.getpid()}"
        self._path = f"/run/{self._name}"
        self._files = {
            f"{RUNTIME_UNITS}/{self._name}.socket": _SOCKET.format(path=self._path),
            # One that has failed must be there to be asked how.
            f"{RUNTIME_UNITS}/{self._name}@.service": re.sub(
                r"^CollectMode=.*$", "CollectMode=inactive", text, flags=re.MULTILINE
            ),
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
        known = self._instances()
        socket = FdSeqPacket.connect(self._path, PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not (new := self._instances() - known):
            if time.monotonic() > deadline:
                socket.close()
                raise SystemCallError(f"prove: systemd has started no {self._name}@.service")
        return Instance(socket, new.pop())

    def _instances(self) -> set[str]:
        listed = _systemctl("list-units", "--all", "--plain", "--no-legend", f"{self._name}@*.service")
        return {line.split()[0] for line in listed.splitlines()}

    def close(self) -> None:
        group = f"system-{self._name}.slice".replace(self._name, self._name.replace("-", r"\x2d"))  # of the instances
        _systemctl("stop", f"{self._name}.socket", f"{self._name}@*.service", group, check=False)
        for path in self._files:
            if os.path.exists(path):  # noqa: PTH110
                os.unlink(path)  # noqa: PTH108
        _systemctl("reset-failed", f"{self._name}*", check=False)
        _systemctl("daemon-reload")


class Instance(Served):
    """A server in a unit of its own."""

    def __init__(self, socket: SeqPacket, unit: str) -> None:
        self.socket, self._unit = socket, unit
        self.pid = int(self._facts()["MainPID"])

    def _facts(self) -> dict[str, str]:
        """Return what systemd knows of it (systemctl(1), org.freedesktop.systemd1(5))."""
        names = "ActiveState,MainPID,ExecMainCode,ExecMainStatus"
        pairs = (line.partition("=") for line in _systemctl("show", f"--property={names}", self._unit).splitlines())
        return {key: value for key, _, value in pairs}

    def ending(self) -> tuple[str, str]:
        deadline = time.monotonic() + PATIENCE
        while (facts := self._facts())["ActiveState"] not in ("inactive", "failed"):
            if time.monotonic() > deadline:
                return DIED, "and systemd has not seen it"
        code, status = int(facts["ExecMainCode"]), int(facts["ExecMainStatus"])
        if status == signal.SIGSYS and code in (os.CLD_KILLED, os.CLD_DUMPED):
            return KILLED, "by seccomp"
        return DIED, f"with {'exit status' if code == os.CLD_EXITED else 'signal'} {status}"

    def close(self) -> None:
        self.socket.close()
        _systemctl("stop", self._unit, check=False)
        _systemctl("reset-failed", self._unit, check=False)


def _systemctl(*words: str, check: bool = True) -> str:
    """Return what systemctl(1) prints; SystemCallError with its complaint where it fails, and *check*."""
    try:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemCallError(f"systemctl: {error.strerror}") from None
    if check and done.returncode != 0:
        raise SystemCallError(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
