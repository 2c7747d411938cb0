"""Filters: what they answer, by an interpreter of their own language and by the kernel, and who is told of a violation."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from fuservice.cage.profile import CONVERSE, SERVE
from fuservice.linux import prctl, seccomp, syscalls
from fuservice.linux.fdsockets import FdSeqPacket
from tests.linux import bpf
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from fuservice.linux.fds import Fd

ALLOW, KILL = seccomp.SECCOMP_RET_ALLOW, seccomp.SECCOMP_RET_KILL_PROCESS
I386, X32 = 0x4000_0003, 0x4000_0000
RULES: seccomp.Rules = {
    "readv": (), "write": (), "exit_group": (), "brk": (), "sendmsg": (), "close": (), "getsockopt": (), "getsockname": (),
    "mmap": ((2, 4, (0,)), (3, 0x20, (0x20,))),
    "ioctl": ((1, 0xFFFF_FFFF, (0x5451, 0x5421)),),
}  # fmt: skip


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_exactly_the_rules_are_allowed(machine: str) -> None:
    numbers, (_, architecture) = syscalls.numbers(machine), syscalls.MACHINES[machine]
    program = seccomp.program(RULES, KILL, machine)
    for name, number in numbers.items():
        free = name in RULES and not RULES[name]
        assert bpf.run(program, number, architecture) == (ALLOW if free else KILL), name
        assert bpf.run(program, number, I386) == KILL
        assert bpf.run(program, number | X32, architecture) == KILL
    assert bpf.run(program, -1, architecture) == bpf.run(program, 10_000, architecture) == KILL


@pytest.mark.parametrize("machine", syscalls.MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 3, 0x21), ALLOW),
        ("mmap", (0, 4096, 7, 0x22), KILL),  # PROT_EXEC
        ("mmap", (0, 4096, 4, 0x22), KILL),
        ("mmap", (0, 4096, 1, 0x02), KILL),  # a file
        ("mmap", (0, 4096, 7, 0x02), KILL),
        ("ioctl", (3, 0x5451), ALLOW),
        ("ioctl", (3, 0x5421), ALLOW),
        ("ioctl", (3, 0x1_0000_5421), ALLOW),  # the kernel looks at the same 32 bits
        ("ioctl", (3, 0x5420), KILL),
        ("ioctl", (3, 0), KILL),
    ],
)
def test_a_call_is_allowed_in_some_forms_only(
    machine: str, name: str, arguments: tuple[int, ...], verdict: int
) -> None:
    program = seccomp.program(RULES, KILL, machine)
    assert bpf.run(program, syscalls.numbers(machine)[name], syscalls.MACHINES[machine][1], arguments) == verdict


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_the_servers_rules_are_filters_on_every_machine(machine: str) -> None:
    rules = {**SERVE, **CONVERSE}
    program = seccomp.program(rules, KILL, machine)
    assert len(program) // 8 < 4_096  # BPF_MAXINSNS
    numbers = syscalls.numbers(machine)
    for name in ("execve", "socket", "openat", "clone", "ptrace", "mprotect", "io_uring_setup", "bpf"):
        assert bpf.run(program, numbers[name], syscalls.MACHINES[machine][1]) == KILL


def test_a_name_that_no_machine_has_is_a_bug() -> None:
    with pytest.raises(KeyError):
        seccomp.program({"raedv": ()}, KILL, "x86_64")
    program = seccomp.program({"poll": (), "ppoll": ()}, KILL, "aarch64")
    assert bpf.run(program, syscalls.numbers("aarch64")["ppoll"], syscalls.MACHINES["aarch64"][1]) == ALLOW


def forked(violation: int, handover: int | None = None) -> int:
    """Return the pid of a child under RULES that reads a byte from descriptor 0's place, and then asks for its uid."""
    program = seccomp.program(RULES, violation, syscalls.this_machine())
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(20)
        prctl.set_no_new_privs()
        if handover is None:
            seccomp.install(program)
        else:
            with seccomp.install_with_listener(program) as listener:
                seccomp.hand_over(handover, listener.fileno())
        os.getuid()
    finally:
        os._exit(3)


def test_the_kernel_kills_at_a_violation() -> None:
    _, ended = os.waitpid(forked(KILL), 0)
    assert os.waitstatus_to_exitcode(ended) == -signal.SIGSYS


@contextmanager
def supervised() -> Iterator[tuple[int, Fd]]:
    """Give the pid of a process that will break the rules, and the listener of its filter."""
    ours, theirs = FdSeqPacket.pair()
    with ours, theirs:
        pid = forked(seccomp.SECCOMP_RET_USER_NOTIF, theirs.fileno())
        packet, (listener,) = ours.receive_with_fds(100)
        with listener:
            try:
                yield pid, listener
            finally:  # while the listener is open: when it is closed, the call fails, and the process goes on
                os.kill(pid, signal.SIGKILL)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        assert packet == b"listener"


def test_the_supervisor_is_told_the_call_and_the_process_waits() -> None:
    with supervised() as (pid, listener):
        found: list[seccomp.Violation] = []

        def one() -> bool:
            found.extend(violation for violation in [seccomp.receive(listener.fileno())] if violation)
            return bool(found)

        wait_until(one, "a violation")
        assert (found[0].pid, found[0].name, len(found[0].arguments)) == (pid, "getuid", 6)
        assert seccomp.receive(listener.fileno()) is None


def test_a_process_that_died_meanwhile_has_nothing_to_tell() -> None:
    with supervised() as (pid, listener):
        found = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PIDFD, found, os.WEXITED | os.WNOWAIT)
        os.close(found)
        assert seccomp.receive(listener.fileno()) is None


def test_a_supervisor_that_lets_go_lets_nothing_through() -> None:
    ours, theirs = FdSeqPacket.pair()
    with ours, theirs:
        pid = forked(seccomp.SECCOMP_RET_USER_NOTIF, theirs.fileno())
        for listener in ours.receive_with_fds(100)[1]:
            listener.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3  # getuid(2) has failed, and nobody looked


def test_a_supervisor_that_is_gone_is_found_out_when_the_listener_is_handed_over() -> None:
    ours, theirs = FdSeqPacket.pair()
    ours.close()
    with theirs, pytest.raises(BrokenPipeError) as error:
        seccomp.hand_over(theirs.fileno(), 0)
    assert error.value.errno == errno.EPIPE
