"""Attempts on the kernel's rarer interfaces: what is allowed here is what a hole in the kernel is reached by."""

from __future__ import annotations

import errno
import mmap
import os
import struct

from fuservice.linux.capabilities import set_capabilities
from fuservice.linux.rawsyscall import address, buffer, call
from fuservice.prove.attempt import AbsentError, Subject
from fuservice.prove.program import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.prove.ground import Ground

KERNEL: Final = Subject("kernel interfaces")
ADMIN: Final = ("capabilities", "seccomp")

BPF_PROG_LOAD: Final = 5
BPF_PROG_TYPE_SOCKET_FILTER: Final = 1
KEY_SPEC_PROCESS_KEYRING: Final = -2
KEYCTL_GET_KEYRING_ID: Final = 0
READ_IMPLIES_EXEC: Final = 0x0400000
SCHED_FIFO: Final = 1
UFFD_USER_MODE_ONLY: Final = 1
AT_EMPTY_PATH: Final = 0x1000
CAP_SYS_ADMIN: Final = 21
SYSLOG_ACTION_READ_ALL: Final = 3
PAGE: Final = 4096
ALL_PROCESSORS: Final = b"\xff" * 128


@KERNEL.attempt("load a BPF program", "code in the kernel", ("seccomp",), privileged=True)
def load_bpf(_ground: Ground) -> None:
    """bpf(2): a program that returns 0."""
    code = buffer(struct.pack("BBhi", 0xB7, 0, 0, 0) + struct.pack("BBhi", 0x95, 0, 0, 0))
    licence = buffer(b"GPL\0")
    attributes = struct.pack("IIQQIIQ", BPF_PROG_TYPE_SOCKET_FILTER, 2, address(code), address(licence), 0, 0, 0)
    call("bpf", BPF_PROG_LOAD, attributes.ljust(128, b"\0"), 128)


@KERNEL.attempt("open a performance counter", "timing of what others do", ("seccomp",))
def open_counter(_ground: Ground) -> None:
    """perf_event_open(2): the task clock of this process, without the kernel's part."""
    exclude_kernel = 1 << 5
    attributes = struct.pack("IIQQQQQ", 1, 128, 1, 0, 0, 0, exclude_kernel).ljust(128, b"\0")
    call("perf_event_open", attributes, 0, -1, -1, 0)


@KERNEL.attempt("set up an io_uring", "system calls that no filter sees", ("seccomp",))
def set_up_ring(_ground: Ground) -> None:
    """io_uring_setup(2)."""
    call("io_uring_setup", 1, buffer(bytes(120)))


@KERNEL.attempt("make a userfaultfd", "holding the kernel still in the middle of a copy", ("seccomp",))
def make_userfaultfd(_ground: Ground) -> None:
    """userfaultfd(2), as everybody may."""
    call("userfaultfd", UFFD_USER_MODE_ONLY)


@KERNEL.attempt("ask for a keyring", "keys of its user", ("seccomp",))
def ask_for_keyring(_ground: Ground) -> None:
    """keyctl(2)."""
    call("keyctl", KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1)


@KERNEL.attempt("add a key", "memory in the kernel that outlives it", ("seccomp",))
def add_key(_ground: Ground) -> None:
    """add_key(2), to a keyring that ends with this process."""
    call("add_key", b"user", b"attempt", b"x", 1, KEY_SPEC_PROCESS_KEYRING)


@KERNEL.attempt("execute from memory", "any program, without a file", ("limits", "seccomp"))
def execute_memory(_ground: Ground) -> None:
    """Execute a program from a memory file; it says so itself over the socket."""
    fd = call("memfd_create", b"attempt", 0)
    os.write(fd, program())
    pointers = buffer(bytes(16))
    call("execveat", fd, b"", pointers, pointers, AT_EMPTY_PATH)


@KERNEL.attempt("make written memory executable", "code of its own instead of bent code of ours", ("seccomp",))
def execute_written(_ground: Ground) -> None:
    """mprotect(2) memory that was written before."""
    memory = mmap.mmap(-1, PAGE)
    memory[0] = 0xC3
    call("mprotect", address(memory), PAGE, mmap.PROT_READ | mmap.PROT_EXEC)


@KERNEL.attempt("map memory that is executable and writable", "the same, in one step", ("seccomp",))
def map_writable_code(_ground: Ground) -> None:
    """mmap(2)."""
    mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


@KERNEL.attempt("change the personality", "memory that is executable wherever it is readable", ("seccomp",))
def change_personality(_ground: Ground) -> None:
    """personality(2)."""
    call("personality", READ_IMPLIES_EXEC)


@KERNEL.attempt("raise a capability", "one of root's rights", ADMIN, privileged=True)
def raise_capability(_ground: Ground) -> None:
    """capset(2)."""
    set_capabilities(1 << CAP_SYS_ADMIN, 1 << CAP_SYS_ADMIN, 0)


@KERNEL.attempt("come before others", "others that wait", ADMIN, privileged=True)
def come_first(_ground: Ground) -> None:
    """setpriority(2), downwards."""
    call("setpriority", 0, 0, -1)


@KERNEL.attempt("run in real time", "a processor that nobody else gets", ADMIN, privileged=True)
def run_in_real_time(_ground: Ground) -> None:
    """sched_setscheduler(2): the lowest priority of its kind, and it ends at once."""
    os.sched_setscheduler(0, SCHED_FIFO, os.sched_param(1))


@KERNEL.attempt("choose its processors", "a processor that others are measured on", ("seccomp",))
def choose_processors(_ground: Ground) -> None:
    """sched_setaffinity(2)."""
    call("sched_setaffinity", 0, len(ALL_PROCESSORS), ALL_PROCESSORS)


@KERNEL.attempt("read the kernel's log", "addresses, devices, names", ("seccomp",), privileged=True)
def read_kernel_log(_ground: Ground) -> None:
    """syslog(2), where everybody may."""
    try:
        call("syslog", SYSLOG_ACTION_READ_ALL, buffer(bytes(256)), 256)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise AbsentError("this kernel has no log") from None
        raise


@KERNEL.attempt("add a seccomp filter", "control over what its own checks are told", ("seccomp",))
def add_filter(_ground: Ground) -> None:
    """Ask which actions a filter may have: the same call would add one."""
    call("seccomp", 2, 0, (0x7FFF0000).to_bytes(4, "little"))  # SECCOMP_GET_ACTION_AVAIL, SECCOMP_RET_ALLOW
