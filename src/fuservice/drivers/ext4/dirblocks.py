"""One block of a directory: a chain of entries that fills it exactly.

Hashed directories need no rule of their own to be read in order: their index blocks, and the checksum at the end of a leaf,
are disguised as entries without an inode. Source: the kernel's Documentation/filesystems/ext4/directory.rst.

The first entry that breaks a rule ends its block, because nothing says where the next one would begin. A name that no
file can have ('/' or NUL in it, empty, "." or ".." elsewhere than at the start) is left out; the chain goes on behind it.
"""

from __future__ import annotations

import stat
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeAlias

    #: Where the next entry begins, inode, kind (S_IFMT bits, 0: unknown), name.
    Name: TypeAlias = tuple[int, int, int, bytes]

_unpack: Final = Struct("<IHBB").unpack_from  # inode, rec_len, name_len, file_type
_SHORTEST: Final = 12
_DOTS: Final = (b".", b"..")
#: File types of an entry, as S_IFMT bits; the values behind the last are unknown, and so are all without the feature filetype.
KINDS: Final = (
    0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFLNK, *[0] * 248
)  # fmt: skip
NO_KINDS: Final = (0,) * 256


class DirFormat:
    """What a filesystem's directories have in common."""

    __slots__ = ("inodes_count", "kinds", "wide")

    def __init__(self, inodes_count: int, *, filetype: bool, block_size: int) -> None:
        self.inodes_count = inodes_count
        self.kinds = KINDS if filetype else NO_KINDS
        self.wide = block_size == 1 << 16  # rec_len has 16 bits: 65535 and 0 stand for a whole block


class DirBlock:
    """What was found in one block: its ``names``, what is wrong with it (``fault``, "": nothing), how many entries are unused."""

    __slots__ = ("fault", "names", "unused")

    def __init__(self) -> None:
        self.names: list[Name] = []
        self.fault, self.unused = "", 0


def parse_block(form: DirFormat, data: bytes, start: int, end: int, *, dots: bool, encrypted: bool = False) -> DirBlock:
    """Return what is in the block ``data[start:end]``; positions are those in *data*.

    *dots*: the block begins with "." and "..", the first of a directory. *encrypted*: names are any bytes.
    """
    found = DirBlock()
    names, kinds, most = found.names, form.kinds, form.inodes_count
    last = end - _SHORTEST  # where the last entry can begin
    at = start
    while at < end:
        if at > last:
            found.fault = f"an entry at byte {at - start} has no room"
            break
        ino, length, name_length, kind = _unpack(data, at)
        if form.wide and length in (0, 65535):
            length = end - start
        behind = at + length
        if length < 12 or length & 3 or length < name_length + 8 or behind > end or last < behind < end or ino > most:
            found.fault = f"bad entry at byte {at - start}: length {length}, name length {name_length}, inode {ino}"
            break
        if not ino:
            found.unused += 1
        else:
            name = data[at + 8 : at + 8 + name_length]
            odd = name in _DOTS and not (dots and len(names) < 2)
            if odd or not name or (not encrypted and (b"/" in name or b"\0" in name)):
                found.fault = f"an impossible name at byte {at - start}"
            else:
                names.append((behind, ino, kinds[kind], name))
        at = behind
    return found


def find_name(form: DirFormat, data: bytes, start: int, end: int, name: bytes) -> int:
    """Return the inode of *name* in one block, 0 where it has none; for directories too large to be remembered."""
    for _behind, ino, _kind, candidate in parse_block(form, data, start, end, dots=False).names:
        if candidate == name:
            return ino
    return 0
