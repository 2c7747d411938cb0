"""A machine that systemd runs, on one whose own PID 1 may be anything: for tests, and for whoever wants to look around.

Its processes have namespaces and a control group of their own; its file tree is this machine's, through an overlay to which
it writes in memory. Whatever happens in it, nothing of it is left: the kernel ends the namespaces with their PID 1.

``python -m tests.systemd.machine [--lower=TREE] [COMMAND…]`` boots one with the checkout in it, runs COMMAND (a shell), powers it
off. TREE is another file tree with a systemd, such as mmdebstrap(1) makes of another release; MACHINE_TREE in the environment
says the same to tests. Its Python needs ``.venv/lib/python3.N/site-packages`` with a .pth file that names ``src``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.capabilities import REPOSITORY
from tests.support.waiting import holds_within

BOOT = Path(__file__).with_name("boot.sh")
ENVIRONMENT = {
    "PATH": f"{REPOSITORY}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp", "LANG": "C.UTF-8",
}  # fmt: skip
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
TREE = os.environ.get("MACHINE_TREE", "/")
BOOTED = ("running", "degraded")

Done = subprocess.CompletedProcess[str]


def cgroup2() -> Path | None:
    """Return where the unified hierarchy of control groups is mounted, or None."""
    lines = (line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines())
    return next((Path(place) for _, place, fstype, *_ in lines if fstype == "cgroup2"), None)


class Machine:
    """A booted machine; leaving the context powers it off."""

    def __init__(self, files: Mapping[str, str | bytes | Path] | None = None, lower: str = TREE) -> None:
        """Boot it over the file tree *lower* (or an overlay's list), with *files* in it from the start.

        These are path → content, or where a symbolic link leads.
        """
        hierarchy = cgroup2()
        assert hierarchy is not None, "no cgroup2 is mounted"
        self._workshop = Path(tempfile.mkdtemp(prefix="fuservice-machine-"))
        self._cgroup = hierarchy / self._workshop.name
        self._cgroup.mkdir()
        for name in ("root", "ram", "files"):
            (self._workshop / name).mkdir()
        for path, content in (files or {}).items():
            _put(self._workshop / "files" / path.lstrip("/"), content)
        self._start(lower)
        self.pid = 0
        if not holds_within(60, self._is_up, 0.01):
            said = self.log
            self.power_off()
            raise AssertionError(f"systemd did not boot: {said}")

    def _start(self, lower: str) -> None:
        boot: list[str | Path] = ["sh", BOOT, lower, self._workshop, REPOSITORY]
        unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child=KILL"]
        join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'  # before its namespace of control groups is made
        with (self._workshop / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "sh", "-c", join, self._cgroup, *unshare, *boot],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """What was said while it booted, before there was a journal."""
        return (self._workshop / "log").read_text()

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"systemd ended while it booted: {self.log}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = int(children[0]) if children else 0
        if not self.pid or not (self.root / "run/systemd/private").is_socket():
            return False
        return self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip() in BOOTED

    @property
    def root(self) -> Path:
        """Where its file tree can be seen from here."""
        return Path(f"/proc/{self.pid}/root")

    def inside(self, *command: str | Path, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the words that run *command* in it, as root, outside of all units."""
        variables = [f"{key}={value}" for key, value in {**ENVIRONMENT, **(environment or {})}.items()]
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "env", "-i"]
        return [*enter, *variables, *(os.fspath(word) for word in command)]

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = 60, text: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Done:  # fmt: skip
        """Run *command* in it, with *text* for standard input; with *check*, it must end well."""
        words = self.inside(*command, environment=environment)
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{' '.join(map(str, command))}: {done}\n{self.journal()}"
        return done

    def becomes(self, predicate: Callable[[], object], seconds: float = 10) -> bool:
        """Return whether *predicate* is true within *seconds*: what systemd does takes a moment."""
        return holds_within(seconds, predicate, 0.02)

    def journal(self, *words: str) -> str:
        """Return the journal, or what *words* select of it (journalctl(1))."""
        self.run("journalctl", "--sync", check=False)
        return self.run("journalctl", "--no-pager", "--output=short-precise", *words, check=False).stdout

    def power_off(self, seconds: float = 30) -> bool:
        """Shut it down and leave nothing; return whether it went by itself within *seconds*. A second call does nothing."""
        if not self._workshop.exists():
            return False
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGRTMIN + 4)  # systemd(1): start poweroff.target
        went = bool(self.pid) and holds_within(seconds, lambda: self._process.poll() is not None, 0.02)
        self._process.kill()  # and, by --kill-child, its PID 1
        self._process.wait()
        # Those that nsenter brought in are in its pid namespace too, but a server of a mount may wait for the kernel.
        (self._cgroup / "cgroup.kill").write_text("1")
        events = self._cgroup / "cgroup.events"
        holds_within(10, lambda: "populated 0" in events.read_text())
        self._tidy_up()
        return went

    def _tidy_up(self) -> None:
        """Remove by name: what is not empty must not be removed."""
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            Path(directory).rmdir()
        for place, directories, names in os.walk(self._workshop, topdown=False):
            for name in names:
                Path(place, name).unlink()
            for name in directories:
                Path(place, name).rmdir()
        self._workshop.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.power_off()


def _put(place: Path, content: str | bytes | Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        place.symlink_to(content)
    else:
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def main(words: Sequence[str]) -> int:
    """Run *words* in a machine; return its exit code."""
    lower = words[0].partition("=")[2] if words and words[0].startswith("--lower=") else ""
    with Machine(lower=lower or TREE) as machine:
        return subprocess.run(machine.inside(*(words[bool(lower) :] or ["bash"])), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
