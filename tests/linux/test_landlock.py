"""Landlock without any exception: what it knows in each version, and what a process can still do under it."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fuservice.linux import landlock, prctl, seccomp, syscalls
from tests.linux.children import Said, in_child
from tests.linux.header import compile_and_ask


@pytest.mark.parametrize(("abi", "rights"), [(1, (0x1FFF, 0, 0)), (3, (0x7FFF, 0, 0)), (5, (0xFFFF, 3, 0)), (99, (0xFFFF, 3, 3))])  # fmt: skip
def test_a_version_is_asked_for_all_that_it_knows_and_no_more(abi: int, rights: tuple[int, int, int]) -> None:
    assert landlock.everything(abi) == rights


@pytest.mark.needs("gcc")
def test_the_rights_are_the_headers(tmp_path: Path) -> None:
    known = ("LANDLOCK_ACCESS_FS_EXECUTE", "LANDLOCK_ACCESS_FS_MAKE_SYM", "LANDLOCK_ACCESS_FS_REFER")
    asked = compile_and_ask(known, tmp_path, ("stdio.h", "linux/landlock.h"))
    assert tuple(asked.values()) == (1, (landlock.everything(1)[0] + 1) >> 1, (landlock.everything(2)[0] + 1) >> 1)


def outcome(attempt: Callable[[], object]) -> Said:
    """Return the errno that *attempt* fails with, or "done"."""
    try:
        attempt()
    except OSError as error:
        return error.errno
    return "done"


def attempts(place: Path) -> list[Said]:
    """Return how each thing that Landlock forbids ends."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        return [
            outcome(lambda: os.close(os.open("/etc/passwd", os.O_RDONLY))),
            outcome(lambda: os.listdir("/")),
            outcome(lambda: (place / "new").mkdir()),
            outcome(lambda: os.close(os.open(place / "file", os.O_WRONLY | os.O_TRUNC))),
            outcome(lambda: tcp.bind(("127.0.0.1", 0))),
            outcome(lambda: tcp.connect(("127.0.0.1", 1))),
            outcome(lambda: unix.connect("\0fuservice-test")),
            outcome(lambda: os.kill(os.getppid(), 0)),
        ]


def test_nothing_can_be_opened_reached_or_signalled(tmp_path: Path) -> None:
    if landlock.version() < 6:
        pytest.skip("this kernel's Landlock knows no scopes")
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0fuservice-test")
        listening.listen()

        def child() -> Said:
            prctl.set_no_new_privs()
            pair = os.pipe()
            before = attempts(tmp_path)
            (tmp_path / "new").rmdir()
            landlock.deny_all()
            os.write(pair[1], b"open already")
            return [
                before,
                attempts(tmp_path),
                os.read(pair[0], 100).decode(),
                outcome(lambda: os.kill(os.getpid(), 0)),
            ]

        before, after, still, own = list(in_child(child))  # type: ignore[arg-type]  # the child says a list
    assert before == ["done"] * 5 + [errno.ECONNREFUSED] + ["done"] * 2
    assert after == [errno.EACCES] * 6 + [errno.EPERM] * 2
    assert (still, own) == ("open already", "done")


def test_it_needs_no_new_privileges() -> None:
    def child() -> Said:
        if os.geteuid() == 0:
            os.setresuid(65_534, 65_534, 65_534)
        return outcome(landlock.deny_all)

    assert in_child(child) == errno.EPERM


def test_a_kernel_without_it_is_an_error() -> None:
    """The kernel is made to lack it by a filter: ENOSYS for one call, all others allowed."""

    def child() -> Said:
        prctl.set_no_new_privs()
        missing = syscalls.number("landlock_create_ruleset")
        seccomp.install(
            seccomp._op(0x20, 0) + seccomp._op(0x15, missing, 0, 1)
            + seccomp._op(0x06, 0x0005_0000 | errno.ENOSYS) + seccomp._op(0x06, seccomp.SECCOMP_RET_ALLOW)
        )  # fmt: skip
        signal.alarm(20)
        return outcome(landlock.deny_all)

    assert in_child(child) == errno.ENOSYS
