"""Every number of the wire, once: magics, sizes, flags and limits (docs/protocol.md, "Messages").

Integers are big-endian; a packet is one whole SOCK_SEQPACKET message.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VERSION: Final = 1  # both dialects call themselves 1; the length of the hello tells them apart

# Hello flags: what the helper could do if the server asked for it.
CAN_ALLOW_OTHER: Final = 1
CAN_FUSEBLK: Final = 2

# OPEN and BDEV request flags.
REQUEST_QUIET: Final = 1  # the helper prints nothing if it refuses

# TYPE flags.
TYPE_FUSEBLK: Final = 1

#: Sizes in bytes. libfuse accepts commands up to and including LARGEST_PACKET.
SMALLEST_PACKET: Final = 4
LARGEST_PACKET: Final = 65_536

#: What one conversation may send the helper in all (ours: libfuse has no limit).
MOST_PACKETS: Final = 256
MOST_BYTES: Final = 1 << 20

#: Names of the two files that the helper sends unasked.
ARGV_NAME: Final = b"argv"
FUSEDEV_NAME: Final = b"fusedev"

#: /run/filesystems/SUBTYPE: where sockets are, and how long a subtype may be to fit in sockaddr_un.
SOCKET_DIRECTORY: Final = "/run/filesystems"
LONGEST_SOCKET_PATH: Final = 107

S_IFMT: Final = 0o170000
S_IFDIR: Final = 0o040000
S_IFREG: Final = 0o100000

# mount(2) flags that DOIT may carry: each only restricts (linux/mount.h).
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_SYNCHRONOUS: Final = 16
MS_DIRSYNC: Final = 128
MS_NOSYMFOLLOW: Final = 256
MS_NOATIME: Final = 1 << 10
MS_NODIRATIME: Final = 1 << 11
MS_SILENT: Final = 1 << 15
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24
MS_ALLOWED: Final = (
    MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS | MS_DIRSYNC | MS_NOSYMFOLLOW
    | MS_NOATIME | MS_NODIRATIME | MS_SILENT | MS_RELATIME | MS_STRICTATIME
)  # fmt: skip

MAGIC: Final = struct.Struct(">I")


def magic(word: str) -> int:
    """Return the four ASCII characters *word* as the big-endian integer that opens a packet."""
    return int.from_bytes(word.encode("ascii"), "big")
