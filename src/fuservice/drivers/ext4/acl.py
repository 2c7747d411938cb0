"""POSIX ACLs: from ext4's packed form to the one that getxattr(2) hands out.

On disk: version 1, then entries of 4 bytes, or 8 where the tag names a user or group. In an attribute's value: version 2,
then entries of 8 bytes each. Source: the kernel's include/uapi/linux/posix_acl_xattr.h and posix_acl.h.
"""

from __future__ import annotations

import errno
import os
from struct import Struct

from fuservice.drivers.ext4.damage import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_DISK_VERSION: Final = b"\1\0\0\0"
_SHOWN_VERSION: Final = b"\2\0\0\0"
_NAMED: Final = frozenset((0x02, 0x08))  # ACL_USER, ACL_GROUP: an id follows
_PLAIN: Final = frozenset((0x01, 0x04, 0x10, 0x20))  # ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER
_NOBODY: Final = b"\xff\xff\xff\xff"  # ACL_UNDEFINED_ID
_TAG: Final = Struct("<H")


def from_disk(ino: int, value: bytes) -> bytes:
    """Return the ACL *value* of inode *ino* as programs know it; ENODATA where it has no entry."""
    if value[:4] != _DISK_VERSION:
        raise damaged(f"inode {ino}: an access control list of unknown version")
    shown = bytearray(_SHOWN_VERSION)
    at = 4
    while at < len(value):
        tag = _TAG.unpack_from(value, at)[0] if at + 4 <= len(value) else 0
        length = 8 if tag in _NAMED else 4
        if (tag not in _NAMED and tag not in _PLAIN) or at + length > len(value):
            raise damaged(f"inode {ino}: a bad entry in its access control list")
        shown += value[at : at + length] if length == 8 else value[at : at + 4] + _NOBODY
        at += length
    if at == 4:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
    return bytes(shown)
