"""Attempts on other processes: to see, signal, trace, slow down or impersonate them."""

from __future__ import annotations

import errno
import os
import signal
import struct

from fuservice.linux.rawsyscall import address, buffer, call
from fuservice.prove.attempt import AbsentError, Subject, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.prove.ground import Ground

PROCESSES: Final = Subject("processes")
#: A process outside: another user's, not in sight, and Landlock's scope lets no signal out.
SIGNALLING: Final = ("pid", "user+capabilities", "landlock", "seccomp")
#: Touching another process is for who has all its rights.
REACHING: Final = ("pid", "capabilities", "seccomp")
TRACING: Final = (*REACHING, "landlock")
#: Another server has as few rights as we.
TRACING_A_SERVER: Final = ("pid", "landlock", "seccomp", "user+capabilities", "capabilities+dumpable")

# linux/ptrace.h, linux/resource.h
PTRACE_SEIZE: Final = 0x4206
PRIO_PROCESS: Final = 0
RLIMIT_NOFILE: Final = 7
PR_GET_PDEATHSIG: Final = 2  # linux/prctl.h
_IOVEC: Final = struct.Struct("PN")
#: Delivered for real, and ignored by who does not ask for it. Not SIGCONT, which needs no rights within a session.
HARMLESS: Final = signal.SIGURG


@PROCESSES.attempt("signal a process", "ending whatever its user runs", SIGNALLING)
def signal_process(ground: Ground) -> None:
    """kill(2) a process of who started the cage."""
    os.kill(ground.victim, HARMLESS)


@PROCESSES.attempt("signal a process by rt_sigqueueinfo", "the same, through another call", SIGNALLING)
def queue_signal(ground: Ground) -> None:
    """Queue a signal that says that it comes from kill(2), of process 1."""
    siginfo = struct.pack("iii", HARMLESS, 0, -1).ljust(128, b"\0")  # SI_QUEUE
    call("rt_sigqueueinfo", ground.victim, HARMLESS, siginfo)


@PROCESSES.attempt("signal a process by pidfd", "the same, through another call", SIGNALLING)
def signal_by_pidfd(ground: Ground) -> None:
    """pidfd_send_signal(2)."""
    pidfd = call("pidfd_open", ground.victim, 0)
    call("pidfd_send_signal", pidfd, HARMLESS, None, 0)


@PROCESSES.attempt("signal another server", "ending somebody else's mount", SIGNALLING)
def signal_server(ground: Ground) -> None:
    """kill(2) another server in a cage like ours."""
    os.kill(ground.server, HARMLESS)


@PROCESSES.attempt("signal the parent", "ending the listener", SIGNALLING)
def signal_parent(_ground: Ground) -> None:
    """kill(2) whoever started this process."""
    parent = os.getppid()
    if parent == 0:
        refuse(errno.ESRCH, "it is in another namespace")
    os.kill(parent, HARMLESS)


@PROCESSES.attempt("trace a process", "its memory, its descriptors, its rights", TRACING, plain=["user"])
def trace(ground: Ground) -> None:
    """PTRACE_SEIZE a process of who started the cage; it goes on running."""
    call("ptrace", PTRACE_SEIZE, ground.victim, 0, 0)


@PROCESSES.attempt("trace another server", "what is in somebody else's image", TRACING_A_SERVER, plain=["user"])
def trace_server(ground: Ground) -> None:
    """PTRACE_SEIZE another server in a cage like ours."""
    call("ptrace", PTRACE_SEIZE, ground.server, 0, 0)


@PROCESSES.attempt("read another process's memory", "passwords, keys", TRACING, plain=["user"])
def read_memory(ground: Ground) -> None:
    """process_vm_readv(2) at an address that our memory and its, a copy, have in common."""
    _read_memory(ground.victim)


@PROCESSES.attempt("read another server's memory", "what is in somebody else's image", TRACING_A_SERVER, plain=["user"])
def read_server_memory(ground: Ground) -> None:
    """The same of another server."""
    _read_memory(ground.server)


_KNOWN_PLACE: Final = buffer(b"in memory before any fork")


def _read_memory(pid: int) -> None:
    room = buffer(bytes(len(_KNOWN_PLACE)))
    local, remote = (_IOVEC.pack(address(memory), len(memory)) for memory in (room, _KNOWN_PLACE))
    call("process_vm_readv", pid, local, 1, remote, 1, 0)


@PROCESSES.attempt("take another process's descriptor", "files and connections of others", TRACING, plain=["user"])
def take_descriptor(ground: Ground) -> None:
    """pidfd_getfd(2)."""
    pidfd = call("pidfd_open", ground.victim, 0)
    call("pidfd_getfd", pidfd, 0, 0)


@PROCESSES.attempt("slow down a process", "others that wait", REACHING)
def slow_down(ground: Ground) -> None:
    """Make another process nicer, by nothing."""
    call("setpriority", PRIO_PROCESS, ground.victim, 0)


@PROCESSES.attempt("move a process to other processors", "others that wait", REACHING)
def move(ground: Ground) -> None:
    """Let another process run wherever it may."""
    call("sched_setaffinity", ground.victim, 128, b"\xff" * 128)


@PROCESSES.attempt("change a process's limits", "others that fail", ("pid", "user+capabilities", "seccomp"))
def limit(ground: Ground) -> None:
    """Ask for the limits of another process: asking and setting have one permission."""
    call("prlimit64", ground.victim, RLIMIT_NOFILE, None, buffer(bytes(16)))


@PROCESSES.attempt("learn of a process", "what runs on the machine, and when", ("pid", "seccomp"))
def learn(ground: Ground) -> None:
    """Ask for the session of a process by its number: anybody may."""
    os.getsid(ground.victim)


@PROCESSES.attempt("see who started it", "a process number to aim at", ("pid", "seccomp"))
def see_parent(_ground: Ground) -> None:
    """Ask for the parent's number."""
    if os.getppid() == 0:
        refuse(errno.ESRCH, "it is in another namespace")


@PROCESSES.attempt("signal the group of processes", "ending the listener and all its servers",
                   ("session", "seccomp"))  # fmt: skip
def signal_group(_ground: Ground) -> None:
    """Signal our group of processes, and see whether others are in it."""
    os.kill(0, HARMLESS)
    if os.getpgrp() == os.getpid():
        refuse(errno.ESRCH, "nobody else is in it")


@PROCESSES.attempt("outlive the supervisor", "serving on when nobody looks any more", ("parent", "seccomp"))
def outlive(_ground: Ground) -> None:
    """Ask which signal comes when the parent ends: without one, nothing does."""
    number = buffer(bytes(4))
    call("prctl", PR_GET_PDEATHSIG, number)
    if int.from_bytes(number.raw, "little") == signal.SIGKILL:
        refuse(errno.ESRCH, "it is killed with its parent")


@PROCESSES.attempt("be another user", "whatever that user may", ("capabilities", "seccomp"), privileged=True)
def be_another_user(_ground: Ground) -> None:
    """setresuid(2)."""
    os.setresuid(12_345, 12_345, 12_345)


@PROCESSES.attempt("be in another group", "whatever that group may", ("capabilities", "seccomp"),
                   privileged=True)  # fmt: skip
def be_in_another_group(_ground: Ground) -> None:
    """setgroups(2)."""
    os.setgroups([12_345])


@PROCESSES.attempt("keep other groups", "whatever those groups may", ("user",), privileged=True)
def keep_groups(ground: Ground) -> None:
    """See whether a group of who started the cage is left."""
    if not ground.groups:
        raise AbsentError("whoever proves is in no supplementary group")
    if not set(ground.groups) & set(os.getgroups()):
        refuse(errno.EPERM, "none is left")
