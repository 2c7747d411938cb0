"""Names in encrypted directories, and targets of encrypted links, as they are shown without the key.

As the kernel does: what is stored is shown in base64url, behind the two hashes that the directory's index has for it, and
where that would be too long for a name, its end is a SHA-256. A name shown so leads to its file, too.
Source: the kernel's Documentation/filesystems/fscrypt.rst; the layout is that of fscrypt_nokey_name in its fs/crypto/fname.c.
"""

from __future__ import annotations

import sys
from binascii import b2a_base64
from importlib import import_module
from struct import Struct

from fuservice.drivers.ext4.damage import damaged
from fuservice.drivers.ext4.dirhash import TEA, dirhash
from fuservice.drivers.ext4.htree import UNSIGNED_HASH, hash_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.drivers.ext4.superblock import Superblock

#: Python's own module for it: hashlib would load OpenSSL, 10 ms at each start and much code.
_SHA: Final = import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256")
_SHORTEST: Final = 16  # bytes of an encrypted name: one block of the cipher
_WHOLE: Final = 149  # bytes of a name that are shown; of a longer one, the others only as a digest
_HASHES: Final = Struct("<II")
_URL: Final = bytes.maketrans(b"+/", b"-_")


def shown(stored: bytes, hashes: tuple[int, int] = (0, 0)) -> bytes:
    """Return how the encrypted *stored* is shown; EIO where it cannot be an encrypted name."""
    if len(stored) < _SHORTEST:
        raise damaged(f"an encrypted name of {len(stored)} bytes")
    end: bytes = _SHA.sha256(stored[_WHOLE:]).digest() if len(stored) > _WHOLE else b""
    return b2a_base64(_HASHES.pack(*hashes) + stored[:_WHOLE] + end, newline=False).rstrip(b"=").translate(_URL)


def directory_names(superblock: Superblock, root: bytes, *, indexed: bool, hashed: bool) -> Callable[[bytes], bytes]:
    """Return what shows the names of a directory whose first block is *root*.

    *indexed*: it has a hash index; *hashed*: it has none, but is short enough for the kernel to sort it as if it had.
    """
    version = hash_version(root) if indexed else superblock.hash_version if hashed else TEA + 1
    if version > TEA:
        return lambda name: name if name in (b".", b"..") else shown(name)
    seed, signed = superblock.hash_seed, not superblock.flags & UNSIGNED_HASH

    def show(name: bytes) -> bytes:
        return name if name in (b".", b"..") else shown(name, dirhash(name, version, seed, signed=signed))

    return show
