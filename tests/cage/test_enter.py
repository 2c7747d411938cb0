"""Inside the cage, as the kernel sees it: what a forked child has before and after, and what it can no longer do."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuservice.cage import operations as ops
from fuservice.cage.plan import NOBODY, Profile, enter, plan
from fuservice.launch.child import become_server
from fuservice.linux import capabilities, prctl
from fuservice.linux.fdsockets import FdSeqPacket
from tests.linux.children import Said, in_child, status

pytestmark = pytest.mark.needs("root")

NOTHING = "0" * 16
CAGE = plan(Profile())


def inside(then: Callable[[], Said]) -> Said:
    """Return what *then* returns in a process that entered the cage."""

    def child() -> Said:
        enter(CAGE)
        return then()

    return in_child(child)


def test_it_is_another_process_than_before() -> None:
    def child() -> Said:
        before = status()
        enter(CAGE)
        return [dict(before), dict(status())]

    said = in_child(child)
    assert isinstance(said, list)
    before, after = said
    assert isinstance(before, dict) and isinstance(after, dict)
    assert str(before["CapEff"]) != NOTHING and str(before["Uid"]).split() == ["0"] * 4
    assert str(after["Uid"]).split() == str(after["Gid"]).split() == [str(NOBODY)] * 4
    assert after["Groups"] == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert after[name] == NOTHING, name
    assert after["NoNewPrivs"] == "1"


def test_the_limits_are_hard() -> None:
    def child() -> Said:
        kinds = (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
        limits: list[Said] = [bound for kind in kinds for bound in resource.getrlimit(kind)]
        fds: list[int] = []
        try:
            while True:
                fds.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            opened: list[Said] = [len(fds) < 64, error.errno]
        try:
            bytearray(1 << 31)
        except MemoryError:
            return [*limits, *opened, "no memory"]
        return None

    expected = [0, 0, 64, 64, 1 << 30, 1 << 30, True, errno.EMFILE, "no memory"]
    assert inside(child) == expected


def test_a_limit_that_is_lower_already_stays() -> None:
    def child() -> Said:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        os.setresuid(NOBODY, NOBODY, NOBODY)  # whoever has CAP_SYS_RESOURCE may raise it
        ops.Limit("NOFILE", 64).execute()
        return list(resource.getrlimit(resource.RLIMIT_NOFILE))

    assert in_child(child) == [40, 40]


def test_there_is_no_terminal_and_no_group_of_processes_of_the_parents() -> None:
    assert inside(lambda: os.getsid(0) == os.getpgrp() == os.getpid()) is True


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: os.setresuid(0, 0, 0),
        lambda: os.setgroups([0]),
        lambda: os.chown("/dev/null", 65534, 65534),
        lambda: os.open("/etc/shadow", os.O_RDONLY),
        lambda: os.kill(os.getppid(), signal.SIGCONT),
        lambda: capabilities.set_capabilities(1, 1, 0),
        lambda: prctl.prctl(capabilities.PR_CAPBSET_DROP, 0),
        lambda: os.chroot("/"),
        lambda: os.open("/proc/self/mem", os.O_RDONLY),
        lambda: os.open("/proc/self/environ", os.O_RDONLY),
    ],
    ids=[
        "uid 0", "group 0", "chown", "a secret file", "signal root", "capset", "bounding set", "chroot", "its memory",
        "its environment",
    ],
)  # fmt: skip
def test_what_it_tries_is_refused(attempt: Callable[[], object]) -> None:
    def child() -> Said:
        try:
            attempt()
        except OSError as error:
            return error.errno
        return "done"

    assert inside(child) in (errno.EPERM, errno.EACCES)


@contextmanager
def sleeping(setup: Callable[[], None]) -> Iterator[int]:
    """Give the pid of a child that has run *setup*, and waits until it is killed."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        setup()
        os.write(writing, b"!")
        while True:
            signal.pause()
    os.close(writing)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def become_nobody() -> None:
    """Be what the caged process is, without the cage."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl.set_dumpable(1)


def spy(pid: int) -> Said:
    """Return what a process of the same uid gets when it looks into process *pid*: errnos, or "done"."""

    def trace() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(0x4206, pid, None, None) < 0:  # PTRACE_SEIZE
            raise OSError(ctypes.get_errno(), "ptrace")

    def child() -> Said:
        become_nobody()
        outcomes: list[Said] = []
        for attempt in (
            trace,
            lambda: os.listdir(f"/proc/{pid}/fd"),
            lambda: Path(f"/proc/{pid}/root").readlink(),
            lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)),
            lambda: os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY)),
        ):
            try:
                attempt()
                outcomes.append("done")
            except OSError as error:
                outcomes.append(error.errno)
        return outcomes

    return in_child(child)


def test_another_process_of_its_uid_cannot_look_into_it() -> None:
    with sleeping(become_nobody) as open_to_all:
        assert "done" in list(spy(open_to_all) or [])  # type: ignore[arg-type]  # the spy is one
    with sleeping(lambda: enter(CAGE)) as caged:
        assert spy(caged) == [errno.EPERM, errno.EACCES, errno.EACCES, errno.EACCES, errno.EACCES]


class Breaks(ops.Operation):
    """A wall that cannot be built."""

    def describe(self) -> str:
        return "a wall that cannot be built"

    def execute(self) -> None:
        raise PermissionError(errno.EPERM, "not allowed")


def test_a_server_whose_cage_cannot_be_built_ends_and_serves_nothing(tmp_path: Path) -> None:
    here, there = FdSeqPacket.pair()
    log = tmp_path / "log"
    with here, there, log.open("wb") as output:
        pid = os.fork()
        if pid == 0:
            become_server(there.fileno(), output.fileno(), [*CAGE[:2], Breaks()], lambda: os.write(3, b"served"))
        there.close()
        assert here.receive(100) == b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 70
    said = log.read_text()
    assert "PermissionError" in said and "while entering the cage: a wall that cannot be built" in said


def test_nobody_but_root_can_build_it() -> None:
    def child() -> Said:
        become_nobody()
        try:
            enter(CAGE)
        except OSError as error:
            return [error.errno, *error.__notes__]
        return None

    said = in_child(child)
    assert isinstance(said, list)
    assert said[0] == errno.EPERM and said[-1] == "while entering the cage: empty the capability bounding set"
