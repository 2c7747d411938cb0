"""Every number and layout that is spelt out in linux/ and proto/, against the C compiler's headers."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType

import pytest

from fuservice.helper.grants import KERNEL_FILESYSTEMS
from fuservice.linux import (
    blockdev,
    capabilities,
    fdsockets,
    fusedev,
    memfd,
    mountapi,
    nsfs,
    openat2,
    opentree,
    prctl,
    sockets,
    statmount,
    statx,
)
from fuservice.proto import layouts
from tests.linux.header import INCLUDES, MOUNT_INCLUDES, compile_and_ask

pytestmark = pytest.mark.needs("gcc")

#: Constants whose C names are other than ours.
OTHER_NAMES = {
    "NR_OPEN_TREE": "__NR_open_tree", "NR_MOVE_MOUNT": "__NR_move_mount", "NR_FSOPEN": "__NR_fsopen",
    "NR_FSCONFIG": "__NR_fsconfig", "NR_FSMOUNT": "__NR_fsmount", "NR_OPENAT2": "__NR_openat2",
}  # fmt: skip
#: Not in Debian 12's headers: the tests of sockets and of mountinfo ask the running kernel instead.
NOT_IN_HEADERS = {"NR_STATMOUNT", "SO_PASSRIGHTS", "STATX_MNT_ID_UNIQUE", "STATX_SIZE"}
#: Numbers that the kernel has, by their own names; everything else in capitals is ours alone.
PREFIXES = (
    "NR_", "AT_", "FSOPEN_", "FSMOUNT_", "FSCONFIG_", "MOVE_MOUNT_", "OPEN_TREE_", "MOUNT_ATTR_", "MNT_", "UMOUNT_",
    "RESOLVE_", "PR_", "S_IF", "MS_", "SO_", "BLK", "LOOP_C", "LO_FLAGS_", "STATX_", "NS_GET_",
)  # fmt: skip


def named(module: ModuleType) -> dict[str, int]:
    """Return the constants of *module* that the kernel has a name for."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith(PREFIXES) and type(value) is int and name not in {"MS_ALLOWED", *NOT_IN_HEADERS}
    }


@pytest.mark.parametrize(
    "module", [mountapi, opentree, statx, blockdev, nsfs, openat2, prctl, sockets, layouts], ids=lambda m: m.__name__
)
def test_numbers_are_the_headers(module: ModuleType, tmp_path: Path) -> None:
    ours = named(module)
    assert ours or module is sockets
    glibc = {name for name in ours if name.startswith(("MNT_", "UMOUNT_"))}
    for names, includes in ((set(ours) - glibc, INCLUDES), (glibc, MOUNT_INCLUDES)):
        theirs = compile_and_ask(tuple(OTHER_NAMES.get(name, name) for name in sorted(names)), tmp_path, includes)
        assert dict(zip(sorted(names), theirs.values(), strict=True)) == {name: ours[name] for name in names}


def test_the_types_of_the_kernels_own_filesystems_are_the_headers(tmp_path: Path) -> None:
    names = {
        "proc": "PROC_SUPER", "sysfs": "SYSFS", "debugfs": "DEBUGFS", "tracefs": "TRACEFS", "cgroup": "CGROUP_SUPER",
        "cgroup2": "CGROUP2_SUPER", "devpts": "DEVPTS_SUPER", "bpf": "BPF_FS", "securityfs": "SECURITYFS",
        "efivarfs": "EFIVARFS", "nsfs": "NSFS", "pipefs": "PIPEFS", "sockfs": "SOCKFS",
    }  # fmt: skip
    expressions = tuple(f"{name}_MAGIC" for name in names.values())
    theirs = dict(zip(compile_and_ask(expressions, tmp_path).values(), names, strict=True))
    ours = {number: name for number, name in KERNEL_FILESYSTEMS.items() if name in names}
    assert ours == theirs


def test_capability_version_limits_and_seals_are_the_headers(tmp_path: Path) -> None:
    ours = {
        "_LINUX_CAPABILITY_VERSION_3": capabilities._LINUX_CAPABILITY_VERSION_3,
        "F_SEAL_SEAL|F_SEAL_SHRINK|F_SEAL_GROW|F_SEAL_WRITE": memfd.ALL_SEALS,
        "(MISC_MAJOR << 8) | 229": fusedev.FUSE_RDEV,
        "sizeof(((struct sockaddr_un *)0)->sun_path) - 1": layouts.LONGEST_SOCKET_PATH,
    }
    assert compile_and_ask(tuple(ours), tmp_path) == ours


@pytest.mark.parametrize(
    ("layout", "name", "fields"),
    [
        (openat2.OPEN_HOW, "struct open_how", ["flags", "mode", "resolve"]),
        (capabilities.CAP_HEADER, "struct __user_cap_header_struct", ["version", "pid"]),
        (capabilities.CAP_DATA, "struct __user_cap_data_struct", ["effective", "permitted", "inheritable"]),
        (fdsockets._UCRED, "struct ucred", ["pid", "uid", "gid"]),
        (sockets._TIMEVAL, "struct timeval", ["tv_sec", "tv_usec"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layouts_are_the_headers(layout: struct.Struct, name: str, fields: list[str], tmp_path: Path) -> None:
    sizes = {f"sizeof({name})": layout.size}
    offsets = {f"offsetof({name}, {field})": at for field, at in zip(fields, offsets_of(layout), strict=True)}
    assert compile_and_ask(tuple(sizes | offsets), tmp_path) == sizes | offsets


def offsets_of(layout: struct.Struct) -> list[int]:
    """Return where each field of *layout* begins."""
    codes = layout.format
    order = codes[0] if codes[0] in "@=<>!" else ""
    fields = codes.removeprefix(order)
    ends = [struct.calcsize(order + fields[: n + 1]) for n in range(len(fields))]
    return [end - struct.calcsize(order + code) for end, code in zip(ends, fields, strict=True)]


def test_struct_loop_config_has_its_flags_where_we_put_them(tmp_path: Path) -> None:
    layout = blockdev.LOOP_CONFIG
    ours = {"sizeof(struct loop_config)": layout.size, "offsetof(struct loop_config, info.lo_flags)": 60}
    assert compile_and_ask(tuple(ours), tmp_path) == ours
    fields = [0] * 10 + [0xFFFF_FFFF, b"", b"", b""] + [0] * 10
    assert layout.pack(*fields)[60:64] == b"\xff" * 4


def test_struct_statfs_begins_with_its_type_and_fits(tmp_path: Path) -> None:
    asked = compile_and_ask(
        ("offsetof(struct statfs, f_type)", "sizeof(((struct statfs *)0)->f_type)", "sizeof(struct statfs)"), tmp_path
    )
    offset, size, whole = asked.values()
    assert (offset, size) == (0, struct.calcsize("L")) and whole <= 32 * size


def test_statmount_s_head_ends_before_its_strings() -> None:
    assert statmount.STATMOUNT_HEAD.size <= statmount.STATMOUNT_STRINGS
    assert statmount.MNT_ID_REQ.size == 24  # MNT_ID_REQ_SIZE_VER0
    at = offsets_of(statmount.STATMOUNT_HEAD)
    assert at[:8] == [0, 4, 8, 16, 20, 24, 32, 36]  # size, mnt_opts, mask, dev_major, dev_minor, magic, flags, fs_type
    assert at[17:] == [104, 108, 112]  # mnt_root, mnt_point, mnt_ns_id
