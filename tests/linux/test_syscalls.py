"""The tables of system calls, against the kernel's headers for both machines."""

from __future__ import annotations

import re
import subprocess

import pytest

from fuservice.errors import SystemCallError
from fuservice.linux import syscalls

#: Machine → its header. The generic one is aarch64's, which asks for renameat, the old limits and newfstatat.
HEADERS = {
    "x86_64": ("asm/unistd_64.h", ()),
    "aarch64": (
        "asm-generic/unistd.h",
        ("__ARCH_WANT_RENAMEAT", "__ARCH_WANT_NEW_STAT", "__ARCH_WANT_SET_GET_RLIMIT", "__ARCH_WANT_TIME32_SYSCALLS",
         "__ARCH_WANT_SYS_CLONE3", "__ARCH_WANT_MEMFD_SECRET"),
    ),
}  # fmt: skip
#: In the generic header, and no system calls: a count, and where an architecture's own begin.
NO_CALLS = {"syscalls", "arch_specific_syscall"}


def in_header(header: str, wanted: tuple[str, ...]) -> dict[str, int]:
    """Return name → number as the C preprocessor has them."""
    command = ["gcc", "-E", "-dM", "-include", header, *(f"-D{word}" for word in wanted), "-x", "c", "/dev/null"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    macros = dict(re.findall(r"^#define (__NR\w+) (\w+)$", text, re.MULTILINE))
    found = {}
    for macro, value in macros.items():
        while not value.isdigit() and value in macros:
            value = macros[value]
        if macro.startswith("__NR_") and value.isdigit():
            found[macro.removeprefix("__NR_")] = int(value)
    return {name: number for name, number in found.items() if name not in NO_CALLS}


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_the_headers(machine: str) -> None:
    theirs, ours = in_header(*HEADERS[machine]), syscalls.numbers(machine)
    assert len(theirs) > 300
    assert theirs.items() <= ours.items()
    newer = {name: number for name, number in ours.items() if name not in theirs}
    known = max(theirs.values())
    assert all(number > known or name in {"uretprobe", "uprobe"} for name, number in newer.items()), newer


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_no_two_have_one_number(machine: str) -> None:
    numbers = syscalls.numbers(machine)
    assert len(set(numbers.values())) == len(numbers)
    assert syscalls.name_of(numbers["readv"], machine) == "readv"
    assert syscalls.name_of(999, machine) == "system call 999"


def test_a_machine_that_we_do_not_know() -> None:
    with pytest.raises(SystemCallError, match="no system call numbers for `vax': expected x86_64 or aarch64"):
        syscalls.numbers("vax")
