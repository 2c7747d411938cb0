"""What people are told of an image that we do not serve: what it is, and the way out."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

_GUEST: Final = (
    "there is no driver for it yet; guestfish --ro -a {source} -m /dev/sda looks into it in a virtual machine"
)
_TABLE: Final = "name the partition (/dev/sdX1), or say where it begins: -o offset=BYTES (fdisk -l {source} tells: sectors times 512)"
_RAW: Final = "make it a raw image first: qemu-img convert -O raw {source} OUT.img"
_ARCHIVE: Final = "there is no driver for it yet: unpack it, bsdtar -xf {source}"


def _unpack(program: str) -> str:
    return f"unpack it first, and mount what comes out: {program} {{source}}"


#: Word of the probe → what it is, and the way out. Which of them are served, the catalog says, and who listens.
KINDS: Final[Mapping[str, tuple[str, str]]] = {
    **{word: (f"a filesystem of type {word}", _GUEST) for word in (
        "ext2", "ext3", "ext4", "xfs", "btrfs", "squashfs", "erofs", "f2fs", "ntfs", "exfat", "vfat", "iso9660", "udf", "hfs",
        "hfsplus", "apfs", "refs", "jfs", "reiserfs", "nilfs2", "gfs2", "ocfs2", "ufs", "bcachefs", "cramfs", "romfs",
    )},
    "jbd": ("the journal of an ext4 filesystem", "it holds no files: mount the filesystem that it belongs to"),
    "swap": ("swap space", "it holds no files"),
    "zfs": ("a member of a ZFS pool", "import the pool, which takes root: zpool import -o readonly=on"),
    "luks": ("encrypted (LUKS)", "unlock it, udisksctl unlock -b DEVICE or cryptsetup open, and mount the device that appears"),
    "bitlocker": ("encrypted (BitLocker)", "unlock it, cryptsetup open --type bitlk, and mount the device that appears"),
    "lvm2": ("a physical volume of LVM", "activate its volume group, vgchange -ay, and mount a logical volume"),
    "mdraid": ("a member of a RAID", "assemble it, mdadm --assemble --readonly, and mount the device that appears"),
    "gpt": ("a whole disk: it has a partition table (GPT)", _TABLE),
    "dos": ("a whole disk: it has a partition table (MBR)", _TABLE),
    "apm": ("a whole disk: it has a partition table (Apple)", _TABLE),
    "qcow2": ("a virtual machine's disk (qcow2)", _RAW),
    "vmdk": ("a virtual machine's disk (VMDK)", _RAW),
    "vdi": ("a virtual machine's disk (VDI)", _RAW),
    "vhd": ("a virtual machine's disk (VHD)", _RAW),
    "vhdx": ("a virtual machine's disk (VHDX)", _RAW),
    "dmg": ("an Apple disk image (DMG)", "make it a raw image first: dmg2img {source} OUT.img"),
    "sparse": ("an Android sparse image", "make it a raw image first: simg2img {source} OUT.img"),
    "rawcd": ("a CD in raw sectors of 2352 bytes", "make it an ISO image first: bchunk {source} CUE OUT, or ccd2iso"),
    "gzip": ("compressed (gzip)", _unpack("gzip -dk")),
    "xz": ("compressed (xz)", _unpack("xz -dk")),
    "zstd": ("compressed (zstd)", _unpack("zstd -dk")),
    "bzip2": ("compressed (bzip2)", _unpack("bzip2 -dk")),
    "lz4": ("compressed (lz4)", _unpack("lz4 -dk")),
    "lzip": ("compressed (lzip)", _unpack("lzip -dk")),
    "zip": ("a zip archive", "there is no driver for it yet: unpack it, unzip {source}"),
    "7z": ("a 7z archive", "there is no driver for it yet: unpack it, 7z x {source}"),
    "rar": ("a RAR archive", "there is no driver for it yet: unpack it, unrar x {source}"),
    "tar": ("a tar archive", "there is no driver for it yet: unpack it, tar -xf {source}"),
    "cpio": ("a cpio archive", _ARCHIVE),
    "ar": ("an ar archive, or a Debian package", _ARCHIVE),
    "cab": ("a cabinet archive", _ARCHIVE),
    "rpm": ("an RPM package", _ARCHIVE),
    "wim": ("a Windows image (WIM)", "there is no driver for it yet: unpack it, wimlib-imagex apply {source} 1 DIRECTORY"),
    "elf": ("a program, or an AppImage", "it is no filesystem; an AppImage has one within: {source} --appimage-offset tells where"),
    "html": ("a page of the web, not an image", "the download went wrong: open it as text, and look for the link in it"),
    "empty": ("empty", "it has 0 bytes: was it downloaded to the end?"),
    "zeros": ("nothing but zeros as far as we looked", "it was never written, or its beginning is lost; -t TYPE tries all the same"),
    "several": ("two things at once: it has the marks of more than one format", "say which is meant, -t TYPE"),
    "unknown": ("nothing that we know", "it may be encrypted, damaged at its beginning, or begin elsewhere (-o offset=BYTES); -t TYPE tries all the same"),
}  # fmt: skip

#: Words that are filesystems: what a driver, or a service, may serve.
FILESYSTEMS: Final = frozenset(word for word, (_, way) in KINDS.items() if way == _GUEST)


def sentence(word: str, source: str) -> str:
    """Return what is said of *source*, which is *word* and not served: what it is, and the way out."""
    what, way = KINDS[word]
    return f"{source}: is {what}: {way.format(source=source)}"
