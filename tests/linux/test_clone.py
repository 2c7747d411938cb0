"""clone(2) with namespace flags: one process, which is what it was asked to be, and a Python that knows that it forked."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from fuservice.linux.clone import CLONE_PARENT, clone
from fuservice.linux.namespaces import CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS
from tests.linux.children import Said, in_child

CLONE_SIGHAND = 0x800  # not without CLONE_VM, says the kernel
NOBODY = 65_534


def become_nobody() -> None:
    """Be a plain user."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def cloned(flags: int, tell: int) -> int:
    """Return the exit status of a clone that writes its pid and its parent's to descriptor *tell*, or -1."""
    pid = clone(flags)
    if pid == 0:
        signal.alarm(20)
        os.write(tell, f"{os.getpid()} {os.getppid()}\n".encode())
        os._exit(7)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return -1


@pytest.mark.parametrize(
    "flags",
    [0, pytest.param(CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS, marks=pytest.mark.needs("root"))],
    ids=["none", "namespaces"],
)
def test_it_is_a_fork(flags: int) -> None:
    reading, writing = os.pipe()
    assert cloned(flags, writing) == 7
    told = os.read(reading, 100).split()
    assert told == [b"1", b"0"] if flags else int(told[1]) == os.getpid()
    os.close(reading)
    os.close(writing)


@pytest.mark.needs("userns")
def test_a_plain_user_gets_namespaces_with_a_user_namespace_and_not_without() -> None:
    def child() -> Said:
        if os.geteuid() == 0:
            become_nobody()
        try:
            clone(CLONE_NEWPID)
        except OSError as error:
            refused = error.errno
        return [refused, cloned(CLONE_NEWPID | CLONE_NEWUSER, os.open(os.devnull, os.O_WRONLY))]

    assert in_child(child) == [errno.EPERM, 7]


@pytest.mark.needs("userns")
@pytest.mark.parametrize("flags", [0, CLONE_NEWUSER | CLONE_NEWPID])
def test_a_sibling_is_reaped_by_our_parent(flags: int) -> None:
    reading, writing = os.pipe()
    assert in_child(lambda: cloned(flags | CLONE_PARENT, writing)) == -1
    _, ended = os.waitpid(-1, 0)
    assert os.waitstatus_to_exitcode(ended) == 7
    assert os.read(reading, 100).split() == [b"1", b"0"] if flags else True
    os.close(reading)
    os.close(writing)


def test_python_s_hooks_run_on_both_sides_and_after_a_failure() -> None:
    def child() -> Said:
        ran: list[Said] = []
        os.register_at_fork(
            before=lambda: ran.append("before"),
            after_in_parent=lambda: ran.append("parent"),
            after_in_child=lambda: ran.append("child"),
        )
        reading, writing = os.pipe()
        if clone(0) == 0:
            os.write(writing, str(ran).encode())
            os._exit(0)
        os.wait()
        with pytest.raises(OSError, match="Invalid argument") as error:
            clone(CLONE_SIGHAND)
        return [os.read(reading, 100).decode(), ran, *error.value.__notes__]

    sides = ["before", "parent"]
    assert in_child(child) == [str(["before", "child"]), [*sides, *sides], "while calling clone()"]
