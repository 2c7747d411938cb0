"""Numbers and layouts against the C compiler and linux/fuse.h, as far as that header goes."""

from __future__ import annotations

import re
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from fuservice.fuse import abi

if TYPE_CHECKING:
    from pathlib import Path

#: struct → our layout, and its fields in order ("*N" of a field: that many items of it go unnamed).
LAYOUTS = {
    "fuse_in_header": (abi.IN_HEADER, "len opcode unique nodeid uid gid pid total_extlen padding"),
    "fuse_out_header": (abi.OUT_HEADER, "len error unique"),
    "fuse_attr": (
        abi.ATTR,
        "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags",
    ),
    "fuse_attr_out": (abi.ATTR_OUT, "attr_valid attr_valid_nsec dummy attr"),
    "fuse_entry_out": (
        abi.ENTRY_OUT,
        "nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec attr",
    ),
    "fuse_dirent": (abi.DIRENT, "ino off namelen type"),
    "fuse_open_out": (abi.OPEN_OUT, "fh open_flags padding"),
    "fuse_kstatfs": (abi.KSTATFS, "blocks bfree bavail files ffree bsize namelen frsize padding spare"),
    "fuse_getxattr_out": (abi.GETXATTR_OUT, "size padding"),
    "fuse_ioctl_in": (abi.IOCTL_IN, "fh flags cmd arg in_size out_size"),
    "fuse_ioctl_out": (abi.IOCTL_OUT, "result flags in_iovs out_iovs"),
    "fuse_lseek_out": (abi.LSEEK_OUT, "offset"),
    "fuse_init_in": (abi.INIT_IN_EXT, "major minor max_readahead flags flags2 unused"),
    "fuse_init_out": (
        abi.INIT_OUT,
        "major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages map_alignment"
        " flags2 unused",
    ),
    "fuse_forget_in": (abi.FORGET_IN, "nlookup"),
    "fuse_forget_one": (abi.FORGET_ONE, "nodeid nlookup"),
    "fuse_batch_forget_in": (abi.BATCH_FORGET_IN, "count dummy"),
    "fuse_getattr_in": (abi.GETATTR_IN, "getattr_flags dummy fh"),
    "fuse_open_in": (abi.OPEN_IN, "flags open_flags"),
    "fuse_read_in": (abi.READ_IN, "fh offset size read_flags lock_owner flags padding"),
    "fuse_release_in": (abi.RELEASE_IN, "fh flags release_flags lock_owner"),
    "fuse_flush_in": (abi.FLUSH_IN, "fh unused padding lock_owner"),
    "fuse_getxattr_in": (abi.GETXATTR_IN, "size padding"),
    "fuse_access_in": (abi.ACCESS_IN, "mask padding"),
    "fuse_lseek_in": (abi.LSEEK_IN, "fh offset whence padding"),
    "fuse_interrupt_in": (abi.INTERRUPT_IN, "unique"),
    # Since 7.39; <linux/stat.h> has the same under the name of the system call, without the spare words of fuse.
    "fuse_sx_time": (abi.SX_TIME, "tv_sec tv_nsec __reserved"),
    "fuse_statx": (
        abi.STATX,
        "mask blksize attributes nlink uid gid mode __spare0 ino size blocks attributes_mask atime btime ctime mtime"
        " rdev_major rdev_minor dev_major dev_minor __spare2",
    ),
    "fuse_statx_in": (abi.STATX_IN, "getattr_flags reserved fh sx_flags sx_mask"),
    "fuse_statx_out": (abi.STATX_OUT, "attr_valid attr_valid_nsec flags spare stat"),
}
SINCE_7_39 = {"fuse_sx_time", "fuse_statx", "fuse_statx_in", "fuse_statx_out"}


def offsets(layout: struct.Struct) -> list[int]:
    """Return where each item of *layout* begins."""
    items = re.findall(r"\d*[A-Za-z]", layout.format.removeprefix("="))
    return [struct.calcsize("=" + "".join(items[:i])) for i in range(len(items))]


def constants() -> dict[str, int]:
    """Return our constants by the header's names."""
    named = {f"FUSE_{name}": number for number, name in abi.OP_NAMES.items()}
    for prefix, numbers in (("FUSE_", vars(abi.Init)), ("FOPEN_", vars(abi.Fopen))):
        named |= {prefix + name: value for name, value in numbers.items() if isinstance(value, int)}
    types = (
        "S_IFMT S_IFSOCK S_IFLNK S_IFREG S_IFBLK S_IFDIR S_IFCHR S_IFIFO S_ISUID S_ISGID STATX_BASIC_STATS STATX_BTIME"
    )
    named |= {name: getattr(abi, name) for name in types.split()}
    named |= {name: getattr(abi, name) for name in ("NAME_MAX", "PATH_MAX", "XATTR_LIST_MAX", "XATTR_SIZE_MAX")}
    return named | {"FUSE_ROOT_ID": abi.ROOT_ID, "FUSE_MIN_READ_BUFFER": abi.MIN_READ_BUFFER}


def compiled(tmp_path: Path, body: str) -> list[str]:
    """Return what a C program with *body* in its main() prints, in lines."""
    (tmp_path / "ask.c").write_text(
        "#define _GNU_SOURCE\n#include <linux/fuse.h>\n#include <linux/limits.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        f"#include <sys/stat.h>\nint main(void) {{\n{body}\nreturn 0; }}\n"
    )
    subprocess.run(["gcc", "-o", tmp_path / "ask", tmp_path / "ask.c"], check=True)
    done = subprocess.run([tmp_path / "ask"], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def header_minor(tmp_path: Path) -> int:
    """Return the minor version of this machine's header."""
    return int(compiled(tmp_path, 'printf("%d", FUSE_KERNEL_MINOR_VERSION);')[0])


@pytest.mark.needs("gcc")
def test_layouts_are_those_of_the_header(tmp_path: Path) -> None:
    new = header_minor(tmp_path) >= 39
    asked = {name: row for name, row in LAYOUTS.items() if new or name not in SINCE_7_39}
    lines = []
    for name, (_, fields) in asked.items():
        lines.append(f'printf("{name} %zu", sizeof(struct {name}));')
        lines += [f'printf(" %zu", offsetof(struct {name}, {field}));' for field in fields.split()]
        lines.append('printf("\\n");')
    for line in compiled(tmp_path, "\n".join(lines)):
        name, size, *found = line.split()
        layout, fields = LAYOUTS[name]
        assert layout.size == int(size), name
        assert offsets(layout)[: len(found)] == [int(at) for at in found], name


@pytest.mark.needs("gcc")
def test_constants_are_those_of_the_header(tmp_path: Path) -> None:
    ours = constants()
    # Opcodes are an enum: what the header lacks would not compile, so only names that stand in it are asked for.
    text = subprocess.run(
        ["gcc", "-E", "-dD", "-include", "linux/fuse.h", "-include", "linux/limits.h", "-include", "sys/stat.h", "-D_GNU_SOURCE", "-x", "c", "/dev/null"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    known = [name for name in ours if re.search(rf"\b{name}\b", text)]
    assert len(known) > 80
    lines = compiled(tmp_path, "\n".join(f'printf("{name} %llu\\n", (unsigned long long){name});' for name in known))
    assert {name: int(value) for name, value in map(str.split, lines)} == {name: ours[name] for name in known}


def test_layouts_newer_than_most_headers() -> None:
    # linux/fuse.h of 7.39: struct fuse_statx is 256 bytes like statx(2)'s, and its reply has 32 before it.
    assert (abi.SX_TIME.size, abi.STATX.size, abi.STATX_OUT.size, abi.STATX_IN.size) == (16, 256, 288, 24)
    assert offsets(abi.STATX)[12:20] == [64, 80, 96, 112, 128, 132, 136, 140]


def test_short_layouts_are_the_start_of_the_long_ones() -> None:
    for short, long in (
        (abi.IN_HEADER_START, abi.IN_HEADER),
        (abi.READ_IN_START, abi.READ_IN),
        (abi.INIT_IN, abi.INIT_IN_EXT),
    ):
        assert long.format.startswith(short.format)


def test_opcodes_fill_the_table() -> None:
    assert max(abi.OP_NAMES) == abi.OP_LIMIT - 1
