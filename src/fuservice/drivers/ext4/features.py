"""Feature flags: their names, and which of them this reader serves.

The names are those of mke2fs(8) and ext4(5). An unknown *incompat* flag means that nothing on the disk may be
interpreted, so the image is refused, naming every such flag. An unknown *ro_compat* flag forbids writing only.
Source: the kernel's Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

HAS_JOURNAL: Final = 0x4
DIR_INDEX: Final = 0x20
SPARSE_SUPER2: Final = 0x200
ORPHAN_FILE: Final = 0x1000

FILETYPE: Final = 0x2
RECOVER: Final = 0x4
JOURNAL_DEV: Final = 0x8
META_BG: Final = 0x10
EXTENTS: Final = 0x40
BITS_64: Final = 0x80
MMP: Final = 0x100
FLEX_BG: Final = 0x200
EA_INODE: Final = 0x400
CSUM_SEED: Final = 0x2000
LARGEDIR: Final = 0x4000
INLINE_DATA: Final = 0x8000
ENCRYPT: Final = 0x10000
CASEFOLD: Final = 0x20000

SPARSE_SUPER: Final = 0x1
HUGE_FILE: Final = 0x8
GDT_CSUM: Final = 0x10
BIGALLOC: Final = 0x200
METADATA_CSUM: Final = 0x400
PROJECT: Final = 0x2000

INCOMPAT_NAMES: Final = {
    0x1: "compression",
    FILETYPE: "filetype",
    RECOVER: "needs_recovery",
    JOURNAL_DEV: "journal_dev",
    META_BG: "meta_bg",
    EXTENTS: "extent",
    BITS_64: "64bit",
    MMP: "mmp",
    FLEX_BG: "flex_bg",
    EA_INODE: "ea_inode",
    0x1000: "dirdata",
    CSUM_SEED: "metadata_csum_seed",
    LARGEDIR: "large_dir",
    INLINE_DATA: "inline_data",
    ENCRYPT: "encrypt",
    CASEFOLD: "casefold",
}

#: Not served: compression and dirdata have no layout that the kernel ever had; journal_dev is no filesystem. encrypt is
#: served as by the kernel without the key: encrypted names are shown in base64, encrypted data are ENOKEY.
INCOMPAT_SERVED: Final = (
    FILETYPE | RECOVER | META_BG | EXTENTS | BITS_64 | MMP | FLEX_BG | EA_INODE | CSUM_SEED | LARGEDIR | INLINE_DATA | ENCRYPT | CASEFOLD
)  # fmt: skip

RO_COMPAT_NAMES: Final = {
    SPARSE_SUPER: "sparse_super",
    0x2: "large_file",
    0x4: "btree_dir",
    HUGE_FILE: "huge_file",
    GDT_CSUM: "uninit_bg",
    0x20: "dir_nlink",
    0x40: "extra_isize",
    0x80: "has_snapshot",
    0x100: "quota",
    BIGALLOC: "bigalloc",
    METADATA_CSUM: "metadata_csum",
    0x800: "replica",
    0x1000: "read-only",
    PROJECT: "project",
    0x4000: "shared_blocks",
    0x8000: "verity",
    0x10000: "orphan_present",
}


def _bits(flags: int) -> list[int]:
    return [1 << i for i in range(flags.bit_length()) if flags >> i & 1]


def unserved(incompat: int) -> list[str]:
    """Return the names of the *incompat* features that keep this reader from serving the image."""
    return [
        INCOMPAT_NAMES.get(bit, f"unknown incompat feature 0x{bit:x}") for bit in _bits(incompat & ~INCOMPAT_SERVED)
    ]


def unknown_ro(ro_compat: int) -> list[str]:
    """Return words for the *ro_compat* features that this reader has never heard of (it may serve them all the same)."""
    return [f"0x{bit:x}" for bit in _bits(ro_compat) if bit not in RO_COMPAT_NAMES]
