"""What an image is, by its magic numbers: one word, looked for with a few short reads. Nothing is parsed that follows.

Its bytes are hostile, so this runs in a cage. Sources: the formats' own documents, the kernel's include/uapi/linux/magic.h,
and libblkid's manners: whoever finds two filesystems names neither, and a partition table is believed last.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

    Read = Callable[[int, int], bytes]  # position and length (bytes) → as many bytes as there are

NOTHING, ZEROS, SEVERAL, UNKNOWN = "empty", "zeros", "several", "unknown"

#: Word, position, bytes: enough of them that chance makes no such image.
_SIGNATURES: Final = (
    ("xfs", 0, b"XFSB"), ("btrfs", 0x10040, b"_BHRfS_M"), ("squashfs", 0, b"hsqs"), ("squashfs", 0, b"sqsh"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"), ("f2fs", 1024, b"\x10\x20\xf5\xf2"), ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "), ("refs", 3, b"ReFS\0\0\0\0"), ("bitlocker", 3, b"-FVE-FS-"), ("apfs", 32, b"NXSB"),
    ("hfsplus", 1024, b"H+\0\4"), ("hfsplus", 1024, b"HX\0\5"), ("jfs", 0x8000, b"JFS1"), ("reiserfs", 0x10034, b"ReIsEr"),
    ("reiserfs", 0x10000, b"ReIsEr4"), ("gfs2", 0x10000, b"\x01\x16\x19\x70\0\0\0\1"), ("cramfs", 0, b"\x45\x3d\xcd\x28"),
    ("romfs", 0, b"-rom1fs-"), ("ufs", 0x1055C, b"\x19\x01\x54\x19"), ("ufs", 0x255C, b"\x54\x19\x01\0"),
    ("bcachefs", 4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"), ("ocfs2", 2048, b"OCFSV2"),
    ("luks", 0, b"LUKS\xba\xbe"), ("mdraid", 4096, b"\xfc\x4e\x2b\xa9\1\0\0\0"), ("mdraid", 0, b"\xfc\x4e\x2b\xa9\1\0\0\0"),
    ("swap", 4086, b"SWAPSPACE2"), ("swap", 4086, b"SWAP-SPACE"), ("swap", 0x3FF6, b"SWAPSPACE2"), ("swap", 0xFFF6, b"SWAPSPACE2"),
    ("qcow2", 0, b"QFI\xfb"), ("vmdk", 0, b"KDMV"), ("vmdk", 0, b"COWD"), ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"), ("vhdx", 0, b"vhdxfile"), ("vhd", 0, b"conectix"), ("sparse", 0, b"\x3a\xff\x26\xed\1\0"),
    ("gzip", 0, b"\x1f\x8b\x08"), ("xz", 0, b"\xfd7zXZ\0"), ("zstd", 0, b"\x28\xb5\x2f\xfd"), ("bzip2", 0, b"BZh"),
    ("lz4", 0, b"\x04\x22\x4d\x18"), ("lzip", 0, b"LZIP\1"), ("zip", 0, b"PK\3\4"), ("zip", 0, b"PK\5\6"),
    ("7z", 0, b"7z\xbc\xaf\x27\x1c"), ("rar", 0, b"Rar!\x1a\x07"), ("cpio", 0, b"07070"), ("ar", 0, b"!<arch>\n"),
    ("cab", 0, b"MSCF\0\0\0\0"), ("wim", 0, b"MSWIM\0\0\0"), ("rpm", 0, b"\xed\xab\xee\xdb"), ("rawcd", 0, b"\0" + b"\xff" * 10 + b"\0"),
    ("elf", 0, b"\x7fELF"),
)  # fmt: skip
#: The same, counted from the image's end.
_TRAILERS: Final = (("vhd", 512, b"conectix"), ("dmg", 512, b"koly\0\0\0\4"))
_HTML: Final = (b"<!doctype html", b"<html", b"<?xml")
_ISO, _SECTOR, _DESCRIPTORS = 0x8000, 2048, 32  # ECMA-119 and ECMA-167: volume descriptors from sector 16 on
_OFTEN_IN_ISO: Final = {
    "hfsplus",
    "hfs",
    "apfs",
    "elf",
}  # what makes a disc boot elsewhere, beside the filesystem that is meant

_EXT: Final = Struct(
    "<I20xI28xHH16xI12xIII"
)  # s_inodes_count, s_log_block_size, s_magic, s_state, s_rev_level, features
_EXT_AT, _EXT_MAGIC = 1024, 0xEF53
_JOURNAL, _JOURNAL_DEV = 0x4, 0x8
#: What ext2 and ext3 may have: filetype, recover, meta_bg; sparse_super, large_file, btree_dir (libblkid's line, and the kernel's).
_OLD_INCOMPAT, _OLD_RO_COMPAT = 0x2 | 0x4 | 0x10, 0x1 | 0x2 | 0x4
_ZFS_RING, _ZFS_MAGIC = (
    0x20000,
    (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"),
)  # uberblocks, 1 KiB or more each
_HEAD: Final = 0x20000  # bytes that are read once: all positions above lie in them


def identify(read: Read, size: int) -> str:
    """Return the word for what the *size* bytes behind *read* are: one of ``kinds.KINDS``."""
    if size == 0:
        return NOTHING
    head = read(0, min(_HEAD, size))
    found = {*_signatures(head), *_trailers(read, size), *_others(head, read)}
    optical = _optical(head)
    if optical:
        found = {optical} | found - _OFTEN_IN_ISO
    if found:
        return found.pop() if len(found) == 1 else SEVERAL
    return _weak(head) or (ZEROS if _is_zero(head, read, size) else UNKNOWN)


def _signatures(head: bytes) -> Iterator[str]:
    return (word for word, place, sign in _SIGNATURES if head.startswith(sign, place))


def _trailers(read: Read, size: int) -> Iterator[str]:
    return (word for word, back, sign in _TRAILERS if size >= back and read(size - back, len(sign)) == sign)


def _others(head: bytes, read: Read) -> Iterator[str]:
    """Yield what takes more than a comparison."""
    if word := _ext(head):
        yield word
    if head.startswith(b"BD", 1024) and _number(head, 1044, 4, "big") % 512 == 0 < _number(head, 1044, 4, "big"):
        yield "hfs"
    if head.startswith(b"\2\0\0\0", 1024) and head.startswith(b"\x34\x34", 1030):
        yield "nilfs2"
    if any(head.startswith(b"LABELONE", sector) and head.startswith(b"LVM2 001", sector + 24) for sector in range(0, 2048, 512)):  # fmt: skip
        yield "lvm2"
    if _is_tar(head):
        yield "tar"
    ring = read(_ZFS_RING, _ZFS_RING)
    if any(ring.startswith(_ZFS_MAGIC, place) for place in range(0, len(ring), 1024)):
        yield "zfs"


def _ext(head: bytes) -> str | None:
    """Return ext2, ext3 or ext4, told apart by their features; jbd for a journal by itself."""
    if len(head) < _EXT_AT + _EXT.size:
        return None
    inodes, log_block_size, magic, _, revision, compat, incompat, ro_compat = _EXT.unpack_from(head, _EXT_AT)
    if magic != _EXT_MAGIC or log_block_size > 6:
        return None
    if revision == 0:  # the features are not there yet
        compat = incompat = ro_compat = 0
    if incompat & _JOURNAL_DEV:
        return "jbd"
    if not inodes:
        return None
    if incompat & ~_OLD_INCOMPAT or ro_compat & ~_OLD_RO_COMPAT:
        return "ext4"
    return "ext3" if compat & _JOURNAL else "ext2"


def _is_tar(head: bytes) -> bool:
    """Say whether the first header's checksum is right: zeros, and old archives without "ustar", are told apart by it."""
    block = head[:512]
    text = block[148:156].strip(b" \0")
    if len(block) < 512 or not block[0] or not text or not all(48 <= digit < 56 for digit in text):
        return False
    return int(text, 8) == sum(block) - sum(block[148:156]) + 8 * 32


def _optical(head: bytes) -> str | None:
    """Return udf or iso9660; where a disc has both, udf, as mount(8) does."""
    sectors = [head[place + 1 : place + 6] for place in range(_ISO, _ISO + _DESCRIPTORS * _SECTOR, _SECTOR)]
    if any(sector in (b"NSR02", b"NSR03") for sector in sectors):
        return "udf"
    return "iso9660" if sectors[0] == b"CD001" else None


def _weak(head: bytes) -> str | None:
    """Return what is believed only where there is nothing better: FAT, a partition table, a page of the web."""
    if _is_fat(head):
        return "vfat"
    if head.startswith(b"EFI PART", 512) or head.startswith(b"EFI PART", 4096):
        return "gpt"
    if head.startswith(b"ER") and head.startswith(b"PM", 512):
        return "apm"
    if _is_mbr(head):
        return "dos"
    return "html" if head[:256].lstrip().lower().startswith(_HTML) else None


def _is_fat(head: bytes) -> bool:
    """Say whether the boot sector's parameters (Microsoft's FAT specification, 3.1) make sense."""
    if len(head) < 512 or head[0] not in (0xEB, 0xE9):
        return False
    sector, cluster, reserved, fats, media = _number(head, 11, 2), head[13], _number(head, 14, 2), head[16], head[21]
    return sector in (512, 1024, 2048, 4096) and cluster.bit_count() == 1 and reserved > 0 and fats in (1, 2) and (media == 0xF0 or media >= 0xF8)  # fmt: skip


def _is_mbr(head: bytes) -> bool:
    entries = [head[place : place + 16] for place in range(446, 510, 16)]
    return head[510:512] == b"\x55\xaa" and all(entry[0] in (0, 0x80) for entry in entries) and any(entry[4] and any(entry[12:]) for entry in entries)  # fmt: skip


def _is_zero(head: bytes, read: Read, size: int) -> bool:
    """Say whether there is nothing but zeros at the beginning, at the end, and in seven places between."""
    return not any(head) and all(not any(read(size * part // 8, 4096)) for part in range(8)) and not any(read(max(0, size - 4096), 4096))  # fmt: skip


def _number(data: bytes, place: int, length: int, order: str = "little") -> int:
    return int.from_bytes(data[place : place + length], "big" if order == "big" else "little")
