"""Requests out of the kernel's bytes, replies out of a driver's values. No I/O; every reply is checked here.

Rule: nothing that a driver returns reaches the kernel unless it passed a check of this file (SECURITY.md, F). What fails
raises :class:`BadAnswerError`, or whatever the value itself raises (a wrong type, an integer that does not fit): the
session turns each of them into EIO for that one request. The other direction, a request that is not laid out as
linux/fuse.h says, raises :class:`MalformedRequestError`.
"""

from __future__ import annotations

import errno

from fuservice.errors import LONGEST_WORD, RemoteProtocolError
from fuservice.fuse import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fuservice.fuse.filesystem import Attr, Buffer, DirEntry, Entry, Opened, StatFs

BODY = abi.IN_HEADER.size  # where the body of a request starts
BILLION = 10**9
SLASH = 0x2F  # bytes are searched for integers: that is memchr, while searching them for bytes takes ten times as long
U32, S64, U64 = 2**32 - 1, 2**63 - 1, 2**64 - 1
LARGEST_BLKSIZE = 1 << 24
NAME_MAX = abi.NAME_MAX

_attr, _entry, _dirent, _open = abi.ATTR.pack, abi.ENTRY_OUT.pack, abi.DIRENT.pack, abi.OPEN_OUT.pack
_DOTS = frozenset((b".", b".."))
_timeouts: dict[int, tuple[int, int]] = {}  # a driver has two or three


class BadAnswerError(Exception):
    """A driver returned what the kernel must not see: a bug of the driver, or a hostile image."""


class MalformedRequestError(RemoteProtocolError):
    """A request that linux/fuse.h does not allow."""


class Policy:
    """What of an untrusted tree is shown.

    Without ``allow_suid`` regular files lose their set-user-ID and set-group-ID bits (a directory keeps its set-group-ID,
    which confers nothing). Without ``allow_dev`` a device node keeps its name in the directory, but looking it up or
    asking for its attributes is EPERM. ``only``: the uids that may see anything, as the kernel says them (allow_root); None:
    all whom the kernel lets through.
    """

    __slots__ = ("allow_dev", "allow_suid", "only")

    def __init__(
        self, *, allow_suid: bool = False, allow_dev: bool = False, only: Collection[int] | None = None
    ) -> None:
        self.allow_suid, self.allow_dev, self.only = allow_suid, allow_dev, only


def shown(value: object) -> str:
    """Return *value* as repr() does, for a sentence that errors.printable() still makes harmless; short, and never raising."""
    try:
        return repr(value)[:LONGEST_WORD]
    except Exception:  # noqa: BLE001 - an integer of 5,000 digits has no repr(), and a driver's class may have a wild one
        return f"<{type(value).__name__}>"


def _within(what: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise BadAnswerError(f"{what} is {shown(value)}, expected {low} to {high}")
    return value


# Requests ------------------------------------------------------------------------------------------------------------


def name_in(request: bytearray, start: int, end: int) -> bytes:
    """Return the NUL-terminated name that fills request[start:end]; OSError for one that is too long for a name."""
    name = bytes(request[start : end - 1])
    if not name or request[end - 1] or 0 in name:
        raise MalformedRequestError(f"a name of {end - start} bytes is not terminated by its only NUL")
    if len(name) > NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, "name too long")
    return name


def child_name_in(request: bytearray, end: int) -> bytes:
    """Return the name that LOOKUP asks for; "." and ".." would be an NFS export's, which we do not offer."""
    name = bytes(request[BODY : end - 1])
    if not name or request[end - 1] or 0 in name or len(name) > NAME_MAX:
        return name_in(request, BODY, end)  # which says what is wrong
    if SLASH in name or name in _DOTS:
        raise MalformedRequestError(f"{shown(name)} cannot be a child's name")
    return name


def forgets_in(request: bytearray, end: int) -> list[tuple[int, int]]:
    """Return (node, count) for each entry of a BATCH_FORGET."""
    count, _ = abi.BATCH_FORGET_IN.unpack_from(request, BODY)
    start = BODY + abi.BATCH_FORGET_IN.size
    if count * abi.FORGET_ONE.size != end - start:
        raise MalformedRequestError(f"BATCH_FORGET of {count} nodes in {end - start} bytes")
    return [abi.FORGET_ONE.unpack_from(request, at) for at in range(start, end, abi.FORGET_ONE.size)]


class InitRequest:
    """The kernel's offer: ``flags`` holds flags2 in its upper half."""

    __slots__ = ("flags", "major", "max_readahead", "minor")

    def __init__(self, request: bytearray, end: int) -> None:
        self.major, self.minor, self.max_readahead, self.flags = abi.INIT_IN.unpack_from(request, BODY)
        if self.flags & abi.Init.INIT_EXT and end >= BODY + abi.INIT_IN_EXT.size:
            self.flags |= abi.INIT_IN_EXT.unpack_from(request, BODY)[4] << 32


def init_reply(offer: InitRequest, wanted: int, max_write: int, max_pages: int, background: int) -> bytes:
    """Return our half of the negotiation: the flags of *wanted* that were offered, times exact to the nanosecond.

    *background*: so many reads ahead the kernel may have sent at a time (0: as it likes); beyond, it reads less ahead.
    """
    flags = wanted & offer.flags
    return abi.INIT_OUT.pack(
        abi.KERNEL_VERSION, min(offer.minor, abi.KERNEL_MINOR_VERSION), offer.max_readahead, flags & U32,
        background, background, max_write, 1, max_pages, 0, flags >> 32, 0, 0, bytes(22),
    )  # fmt: skip


def init_other_major() -> bytes:
    """Return the answer to a newer major version: which one we speak. The kernel then sends INIT again, in that one."""
    return abi.INIT_OUT.pack(abi.KERNEL_VERSION, abi.KERNEL_MINOR_VERSION, *(0,) * 11, bytes(22))


# Replies -------------------------------------------------------------------------------------------------------------


def errno_of(error: OSError) -> int:
    """Return the errno that the kernel will take from *error*; 0 if it holds none (then it is a bug, hence EIO)."""
    number = error.errno
    return number if isinstance(number, int) and 1 <= number <= abi.MAX_ERRNO else 0


def timeout(ns: int) -> tuple[int, int]:
    """Split a timeout as the kernel takes it, into seconds and nanoseconds."""
    split = divmod(_within("timeout", ns, 0, S64), BILLION)
    if len(_timeouts) < 64:
        _timeouts[ns] = split
    return split


def _time(what: str, ns: int) -> tuple[int, int]:
    split = divmod(ns, BILLION)
    if not -S64 <= split[0] <= S64:
        _within(what, split[0], -S64 - 1, S64)
    return split


def _mode(attr: Attr, policy: Policy) -> int:
    """Return the mode to show: exactly one known type, without what the policy hides."""
    mode = attr.mode
    kind = mode & abi.S_IFMT
    if kind not in abi.FILE_TYPES or mode >> 16:
        raise BadAnswerError(f"mode is {shown(mode)}, which is no file type that we know")
    if kind == abi.S_IFREG and not policy.allow_suid:
        mode &= ~(abi.S_ISUID | abi.S_ISGID)
    if kind in (abi.S_IFBLK, abi.S_IFCHR) and not policy.allow_dev:
        raise PermissionError(errno.EPERM, "device nodes of this filesystem are not shown")
    return mode


def _blksize(size: int) -> int:
    # The kernel takes the logarithm of it for i_blkbits: what is no power of two, or enormous, would be misread.
    if _within("blksize", size, 512, LARGEST_BLKSIZE) & (size - 1):
        raise BadAnswerError(f"blksize {size} is no power of two")
    return size


def attr_bytes(attr: Attr, policy: Policy) -> bytes:
    """Check *attr*, return it as struct fuse_attr and keep that in ``attr.packed``: an Attr belongs to one policy."""
    ino, size, blocks = attr.ino, attr.size, attr.blocks
    if not (0 < ino <= U64 and 0 <= size <= S64 and 0 <= blocks <= S64):  # other types than integers pack() refuses
        _within("ino", ino, 1, U64), _within("size", size, 0, S64), _within("blocks", blocks, 0, S64)
    atime, atimensec = _time("atime", attr.atime_ns)
    mtime, mtimensec = _time("mtime", attr.mtime_ns)
    ctime, ctimensec = _time("ctime", attr.ctime_ns)
    packed = attr.packed = _attr(
        ino, size, blocks, atime & U64, mtime & U64, ctime & U64, atimensec, mtimensec, ctimensec,
        _mode(attr, policy), attr.nlink, attr.uid, attr.gid, attr.rdev, _blksize(attr.blksize), 0,
    )  # fmt: skip
    return packed


def entry_bytes(entry: Entry, policy: Policy) -> bytes:
    """Check *entry*, return it as struct fuse_entry_out and keep that in ``entry.packed``: an Entry belongs to one policy.

    The root is no one's child: the kernel would answer EIO itself.
    """
    entry_ns, attr_ns = entry.entry_timeout_ns, entry.attr_timeout_ns
    # 7.0 is found where 7 is kept: what is no integer must not depend on what was asked before.
    entry_valid, entry_nsec = (type(entry_ns) is int and _timeouts.get(entry_ns)) or timeout(entry_ns)
    attr_valid, attr_nsec = (type(attr_ns) is int and _timeouts.get(attr_ns)) or timeout(attr_ns)
    node, attr = entry.node, entry.attr
    if node <= abi.ROOT_ID:  # that it fits into 64 bits is checked by pack()
        raise BadAnswerError(f"node is {shown(node)}, expected {abi.ROOT_ID + 1} or more")
    packed = attr.packed or attr_bytes(attr, policy)
    if policy.only is not None:  # the kernel would believe it of whoever comes next
        entry_valid = attr_valid = entry_nsec = attr_nsec = 0
    told = entry.packed = _entry(node, entry.generation, entry_valid, attr_valid, entry_nsec, attr_nsec, packed)
    return told


def no_entry_bytes(ns: int) -> bytes:
    """Return the answer "no such name" that the kernel may believe for *ns*: an entry of node 0."""
    seconds, rest = timeout(ns)
    return _entry(0, 0, seconds, 0, rest, 0, b"")


def _sx_time(what: str, ns: int) -> bytes:
    return abi.SX_TIME.pack(*_time(what, ns), 0)


def statx_bytes(attr: Attr, policy: Policy, valid_ns: int) -> bytes:
    """Return *attr* as struct fuse_statx_out, with the time of birth where there is one."""
    seconds, rest = timeout(valid_ns)
    _ = attr.packed or attr_bytes(attr, policy)  # all checks are there
    mask, btime = abi.STATX_BASIC_STATS, bytes(16)
    if attr.btime_ns is not None:
        mask, btime = mask | abi.STATX_BTIME, _sx_time("btime", attr.btime_ns)
    major, minor = attr.rdev >> 8 & 0xFFF, attr.rdev & 0xFF | attr.rdev >> 12 & 0xFFF00
    stat = abi.STATX.pack(
        mask, attr.blksize, 0, attr.nlink, attr.uid, attr.gid, _mode(attr, policy), 0,
        attr.ino, attr.size, attr.blocks, 0,
        _sx_time("atime", attr.atime_ns), btime, _sx_time("ctime", attr.ctime_ns), _sx_time("mtime", attr.mtime_ns),
        major, minor, 0, 0, bytes(112),
    )  # fmt: skip
    return abi.STATX_OUT.pack(seconds, rest, 0, bytes(16), stat)


def opened_bytes(opened: Opened) -> bytes:
    """Return *opened* as struct fuse_open_out."""
    flags = opened.flags
    if flags & ~abi.FOPEN_KNOWN:
        raise BadAnswerError(f"open flags are {shown(flags)}, which a driver may not set")
    return _open(opened.handle, flags, 0)


def data_view(data: Buffer, asked: int) -> memoryview:
    """Return the bytes that READ gave as a view, at most as long as *asked*: one byte more would hang the reader."""
    view = data if type(data) is memoryview else memoryview(data)
    if view.nbytes > asked or not view.c_contiguous:
        raise BadAnswerError(f"read gave {view.nbytes} bytes where {asked} were asked for, or a view with gaps")
    return view if len(view) == view.nbytes else view.cast("B")  # items of several bytes, or several dimensions


def link_bytes(target: object) -> bytes:
    """Check the target of a symbolic link."""
    if not isinstance(target, bytes) or not 0 < len(target) < abi.PATH_MAX or 0 in target:
        raise BadAnswerError(f"link target {shown(target)} is not 1 to {abi.PATH_MAX - 1} bytes without NUL")
    return target


def _name(name: object) -> bytes:
    if not isinstance(name, bytes) or not 0 < len(name) <= NAME_MAX or 0 in name or SLASH in name:
        raise BadAnswerError(f"name {shown(name)} is not 1 to {NAME_MAX} bytes without '/' and NUL")
    return name


def dirent_bytes(entry: DirEntry) -> bytes:
    """Return one name of a directory as struct fuse_dirent, padded. Cookie 0 would start the directory over."""
    name = _name(entry.name)
    kind, ino, offset = entry.kind, entry.ino, entry.offset
    if kind and kind not in abi.FILE_TYPES:
        raise BadAnswerError(f"kind of {shown(name)} is {shown(kind)}, which is no file type that we know")
    if not (0 < ino <= U64 and 0 < offset <= S64):
        _within("ino", ino, 1, U64), _within("offset", offset, 1, S64)
    return _dirent(ino, offset, len(name), kind >> 12) + name + bytes(-len(name) & 7)


#: In READDIRPLUS: a name about which nothing is said; the kernel looks it up when somebody wants to know.
ENTRY_UNKNOWN = bytes(abi.ENTRY_OUT.size)


def statfs_bytes(st: StatFs) -> bytes:
    """Return *st* as struct fuse_kstatfs."""
    return abi.KSTATFS.pack(
        st.blocks, st.bfree, st.bavail, st.files, st.ffree, st.bsize, st.namelen, st.frsize, 0, bytes(24)
    )


def xattr_bytes(value: object, room: int) -> bytes:
    """Return the reply to GETXATTR and LISTXATTR: the size alone if *room* is 0, else the bytes; ERANGE if they don't fit."""
    if not isinstance(value, bytes) or len(value) > abi.XATTR_SIZE_MAX:
        raise BadAnswerError(f"xattr {shown(value)} is not at most {abi.XATTR_SIZE_MAX} bytes")
    if room == 0:
        return abi.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > room:
        raise OSError(errno.ERANGE, "buffer too small")
    return value


def xattr_names(names: Iterable[bytes]) -> bytes:
    """Join the names of xattrs, each checked, up to the 64 KiB that listxattr(2) can show."""
    joined = bytearray()
    for name in names:
        joined += _name(name) + b"\0"
        if len(joined) > abi.XATTR_LIST_MAX:
            raise OSError(errno.E2BIG, "too many extended attributes")
    return bytes(joined)


def ioctl_bytes(value: object, room: int) -> bytes:
    """Return the answer to IOCTL: success, and what is copied to the caller, at most *room* bytes."""
    if not isinstance(value, bytes) or len(value) > room:
        raise BadAnswerError(f"ioctl gave {shown(value)} where there is room for {room} bytes")
    return abi.IOCTL_OUT.pack(0, 0, 0, 0) + value


def lseek_bytes(found: int, offset: int) -> bytes:
    """Return the answer to LSEEK: data and holes are found forwards."""
    return abi.LSEEK_OUT.pack(_within("offset", found, offset, S64))
