"""The numbers and layouts of the cage, against the C compiler's headers: namespaces, Landlock, seccomp, capabilities."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fuservice.cage import profile
from fuservice.linux import capabilities, clone, landlock, namespaces, pivot, seccomp, syscalls
from tests.linux.header import compile_and_ask

pytestmark = pytest.mark.needs("gcc")

INCLUDES = (
    "stdio.h", "stddef.h", "signal.h", "sys/ioctl.h", "linux/sched.h", "linux/mount.h", "linux/fcntl.h", "linux/landlock.h",
    "linux/seccomp.h", "linux/filter.h", "linux/audit.h", "linux/prctl.h", "linux/securebits.h", "asm/mman.h",
    "asm/socket.h", "linux/time.h",
)  # fmt: skip

OURS: dict[str, int] = {
    **{name: value for name, value in vars(namespaces).items() if name.startswith("CLONE_")},
    **{name: value for name, value in vars(seccomp).items() if name.startswith("SECCOMP_") and type(value) is int},
    **{name: value for name, value in vars(landlock).items() if name.startswith("LANDLOCK_") and type(value) is int},
    **{name: value for name, value in vars(capabilities).items() if name.startswith("PR_")},
    "CLONE_PARENT": clone.CLONE_PARENT,
    "AT_RECURSIVE": pivot.AT_RECURSIVE,
    "1 << 18": pivot.MS_PRIVATE,  # MS_PRIVATE, which linux/mount.h may not have beside glibc's
    "(SECURE_ALL_BITS | SECURE_ALL_LOCKS) & ~SECBIT_KEEP_CAPS": capabilities.SECUREBITS,
    "BPF_LD | BPF_W | BPF_ABS": seccomp._LOAD,
    "BPF_ALU | BPF_AND | BPF_K": seccomp._AND,
    "BPF_JMP | BPF_JEQ | BPF_K": seccomp._JUMP_EQUAL,
    "BPF_RET | BPF_K": seccomp._RETURN,
    "AUDIT_ARCH_X86_64": syscalls.MACHINES["x86_64"][1],
    "AUDIT_ARCH_AARCH64": syscalls.MACHINES["aarch64"][1],
    "PROT_EXEC": profile._PROT_EXEC,
    "MAP_ANONYMOUS": profile._MAP_ANONYMOUS,
    "FIOCLEX": profile._FIOCLEX,
    "FIONBIO": profile._FIONBIO,
    "F_GET_SEALS": profile._F_GET_SEALS,
    "AT_EMPTY_PATH": profile._AT_EMPTY_PATH,
    "PR_SET_NAME": profile._PR_SET_NAME,
    "SOL_SOCKET": profile._SOL_SOCKET,
}


def test_numbers_are_the_headers(tmp_path: Path) -> None:
    assert len(OURS) > 30
    assert compile_and_ask(tuple(OURS), tmp_path, INCLUDES) == OURS


@pytest.mark.parametrize(
    ("layout", "name", "last"),
    [
        (seccomp.SECCOMP_NOTIF, "struct seccomp_notif", "data.args"),
        (seccomp._INSTRUCTION, "struct sock_filter", "k"),
        (seccomp._PROGRAM, "struct sock_fprog", "filter"),
        (pivot.MOUNT_ATTR, "struct mount_attr", "userns_fd"),
        (landlock.PATH_BENEATH_ATTR, "struct landlock_path_beneath_attr", "parent_fd"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layouts_are_the_headers(layout: struct.Struct, name: str, last: str, tmp_path: Path) -> None:
    size, at = compile_and_ask((f"sizeof({name})", f"offsetof({name}, {last})"), tmp_path, INCLUDES).values()
    assert layout.size == size
    codes = layout.format.replace(" ", "")
    rest = "6Q" if codes.endswith("6Q") else codes[-1]
    assert layout.size - struct.calcsize(rest) == at


def test_what_a_filter_sees_lies_where_it_looks(tmp_path: Path) -> None:
    fields = ("nr", "arch", "args")
    asked = compile_and_ask(tuple(f"offsetof(struct seccomp_data, {field})" for field in fields), tmp_path, INCLUDES)
    assert tuple(asked.values()) == (seccomp._NR, seccomp._ARCH, seccomp._ARGS)
