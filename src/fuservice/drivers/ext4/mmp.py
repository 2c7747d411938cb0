"""Multiple-mount protection: a block in which whoever has the filesystem mounted for writing, or checks it, signs now and then.

A reader is no danger to it, so nothing is refused or waited for, as by the kernel's read-only mount; but what is read while
somebody writes may be neither the old nor the new, and the user is told who it is. Source: the kernel's
Documentation/filesystems/ext4/mmp.rst.
"""

from __future__ import annotations

import time
from struct import Struct

from fuservice.drivers.ext4 import features

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.drivers.ext4.metadata import Metadata

_MMP: Final = Struct("<IIQ64s32s")  # mmp_magic, mmp_seq, mmp_time, mmp_nodename, mmp_bdevname
_MAGIC: Final = 0x004D4D50
_CLEAN, _FSCK = 0xFF4D4D50, 0xE24D4D50
_MOST_SECONDS: Final = 1 << 40


def user(metadata: Metadata) -> str:
    """Return who uses the filesystem, as a sentence, "" if nobody does or nothing tells."""
    superblock = metadata.superblock
    if not superblock.incompat & features.MMP:
        return ""
    try:
        magic, sequence, seconds, node, device = _MMP.unpack_from(metadata.block(superblock.mmp_block))
    except OSError as error:
        return f"its multiple-mount protection cannot be read: {error.strerror}"
    if magic != _MAGIC:
        return (
            f"its multiple-mount protection is damaged: block {superblock.mmp_block} has the magic number 0x{magic:08x}"
        )
    if sequence == _CLEAN:
        return ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) if seconds < _MOST_SECONDS else "some time"
    what = "being checked" if sequence == _FSCK else "in use"
    return f"{what} by {_text(node)} as {_text(device)}, who signed last at {since} UTC: it may change while it is read"


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("ascii", "backslashreplace") or "somebody"
