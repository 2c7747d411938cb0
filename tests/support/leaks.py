"""What a test may leave behind: nothing. Descriptors, children, mounts and threads are counted before and after, and what
the process does everything under (umask, directory, rights) must be as it was.

The pytest process is a child subreaper (see conftest), so an orphan of a program under test becomes our child and is
found here, whoever started it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support import kernel
from tests.support.mounts import Mount, abort_connections, mounts

PATIENCE = 3.0


def open_descriptors() -> dict[int, str]:
    """Return this process's open descriptors and what each is open on."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.fspath(Path(f"/proc/self/fd/{name}").readlink())
        except FileNotFoundError:  # the one that listed the directory
            continue
    return found


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc_pid_stat(5), field 3), or [] if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def children() -> dict[int, str]:
    """Return the pid and name of every child of ours that runs, reaping adopted orphans that ended.

    A child of our own process group that ended is reported: whoever forked it in this process owes it a wait(2).
    Ended children of other groups are orphans that we adopted from a program under test; nobody else reaps those.
    """
    found = {}
    for pid in _child_pids():
        state, _, group, *_ = _stat_fields(pid) or ["X", "", "0"]
        if state in "ZX" and int(group) != os.getpgrp():
            _reap(pid)
        else:
            found[pid] = f"{_name(pid)} ({'never waited for' if state == 'Z' else 'running'})"
    return found


def _child_pids() -> list[int]:
    pids: list[int] = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended while we looked
            pids += map(int, Path(f"/proc/self/task/{task}/children").read_text().split())
    return pids


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return words[:150] or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def setting() -> dict[str, str]:
    """Return what a process does everything under, and would hand on to the next test."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    kept = {name: status[name] for name in ("Umask", "Uid", "Gid", "CapEff", "NoNewPrivs", "SigBlk")}
    return kept | {"directory": os.fspath(Path.cwd())}


def _describe(mount: Mount) -> str:
    return f"{mount.fstype} on {mount.point}"


@dataclass(frozen=True)
class Snapshot:
    """What a process holds at one moment."""

    descriptors: dict[int, str]
    children: dict[int, str]
    mounts: dict[int, Mount]
    threads: dict[int, str]
    setting: dict[str, str]

    @classmethod
    def take(cls) -> Snapshot:
        """Look at this process now."""
        threads = {t.ident or 0: t.name for t in threading.enumerate()}
        return cls(open_descriptors(), children(), {m.mount_id: m for m in mounts()}, threads, setting())

    def left(self, later: Snapshot, *, own_mounts: bool) -> list[str]:
        """Return a line for each thing that *later* has and this snapshot has not, and for each mount that went."""
        lines = [f"descriptor {n}: {what}" for n, what in later.descriptors.items() if self.descriptors.get(n) != what]
        lines += [f"child {pid}: {what}" for pid, what in later.children.items() if pid not in self.children]
        lines += [f"thread: {name}" for ident, name in later.threads.items() if ident not in self.threads]
        lines += [
            f"{what}: {later.setting[what]}, was {was}"
            for what, was in self.setting.items()
            if later.setting[what] != was
        ]
        if own_mounts:
            lines += [f"mount: {_describe(m)}" for i, m in later.mounts.items() if i not in self.mounts]
            lines += [f"unmounted: {_describe(m)}" for i, m in self.mounts.items() if i not in later.mounts]
        return lines

    def new_mounts(self) -> list[Mount]:
        """Return the mounts of our namespace that were made since this snapshot."""
        return [m for m in mounts() if m.mount_id not in self.mounts]


def what_is_left(before: Snapshot, *, own_mounts: bool) -> list[str]:
    """Return what was left since *before*, after giving children and threads PATIENCE seconds to end."""
    gc.collect()
    gc.freeze()  # what outlives this test need not be looked through after each later one: that took half of all the time
    deadline = time.monotonic() + PATIENCE
    while (lines := before.left(Snapshot.take(), own_mounts=own_mounts)) and time.monotonic() < deadline:
        if not any(line.startswith("thread") or line.endswith("(running)") for line in lines):
            break  # descriptors, mounts and the unreaped do not go by themselves
        time.sleep(0.01)
    return lines


def clean_up(before: Snapshot) -> None:
    """Get rid of what was made since *before*, so that the next test starts clean: mounts detached, children killed.

    Only our own children are killed; they cannot be confused with another process, since we have not reaped them.
    """
    os.umask(int(before.setting["Umask"], 8))
    os.chdir(before.setting["directory"])
    new = before.new_mounts()
    abort_connections(new)
    for mount in reversed(new):
        try:
            kernel.umount2(mount.point, kernel.MNT_DETACH)
        except OSError:  # went with the mount above it
            continue
    for _ in range(100):  # a killed parent hands us its children: go on until none comes
        strays = [pid for pid in children() if pid not in before.children]
        if not strays:
            return
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
            _reap(pid)
        time.sleep(0.01)


class Watchdog:
    """Aborts the FUSE connections that a test made when the test hangs, shortly before pytest-timeout gives up.

    pytest-timeout's thread mode ends with os._exit(), which cannot end a thread that waits for a FUSE server's answer;
    only the server's end or an abort can. After the abort the waiting call fails, and so, in the ordinary way, does the
    test.
    """

    def __init__(self, before: Snapshot, seconds: float) -> None:
        self.aborted: list[str] = []
        self._before = before
        self._timer = threading.Timer(seconds, self._abort)
        self._timer.name = "FUSE watchdog"
        self._timer.daemon = True

    def _abort(self) -> None:
        self.aborted = abort_connections(self._before.new_mounts())

    def start(self) -> None:
        """Start the clock."""
        self._timer.start()

    def stop(self) -> list[str]:
        """Stop the clock; return what was aborted."""
        self._timer.cancel()
        self._timer.join()
        return self.aborted
