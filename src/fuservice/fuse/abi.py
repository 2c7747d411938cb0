"""The numbers and layouts of the FUSE kernel protocol, 7.31 to 7.45; nothing here does anything.

Source of every fact: linux/fuse.h (names without their FUSE_ prefix; layouts named after their structs). Byte order is the
host's; every padding is spelled out, so "=" (no alignment) is exact. tests/fuse/test_abi.py asks the C compiler.
"""

from __future__ import annotations

from struct import Struct

KERNEL_VERSION = 7
KERNEL_MINOR_VERSION = 45  # the newest minor whose meanings we know
OLDEST_MINOR_VERSION = 31  # Linux 5.4: everything below has MAX_PAGES and CACHE_SYMLINKS

ROOT_ID = 1
MIN_READ_BUFFER = 8192


class Op:
    """Opcodes of requests."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52  # 7.39
    COPY_FILE_RANGE_64 = 53  # 7.45


#: Opcode → its name, for log lines.
OP_NAMES = {number: name for name, number in vars(Op).items() if isinstance(number, int)}
OP_LIMIT = 54


#: What a server may say of its own: the number stands in the place of the errno, and no request's number beside it.
NOTIFY_RESEND = 7  # 7.40, Linux 6.9: send again what was read and not answered


class Init:
    """Flags of INIT; from bit 32 on they travel in ``flags2``."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36  # 7.39, as the next ones
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


class Fopen:
    """Flags of the replies to OPEN and OPENDIR."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    CACHE_DIR = 1 << 3
    STREAM = 1 << 4
    NOFLUSH = 1 << 5
    PARALLEL_DIRECT_WRITES = 1 << 6


#: What a driver may set. PASSTHROUGH (1 << 7) is not among them: a backing file is a matter of rights, not of drivers.
FOPEN_KNOWN = (1 << 7) - 1

IN_HEADER = Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = Struct("=IiQ")  # len error unique
IN_HEADER_START = Struct("=IIQQ")  # what the engine needs of it

ATTR = Struct("=QQQQQQIIIIIIIIII")  # ino size blocks, times and their nsec, mode nlink uid gid rdev blksize flags
ATTR_OUT = Struct("=QII88s")  # attr_valid attr_valid_nsec dummy attr
ENTRY_OUT = Struct("=QQQQII88s")  # nodeid generation entry_valid attr_valid, their nsec, attr
DIRENT = Struct("=QQII")  # ino off namelen type; name, and zeros up to 8 bytes, follow
SX_TIME = Struct("=qIi")  # tv_sec tv_nsec reserved
STATX = Struct("=IIQIIIHHQQQQ16s16s16s16sIIII112s")  # mask blksize attributes nlink uid gid mode spare ino size blocks
#                       attributes_mask atime btime ctime mtime rdev_major rdev_minor dev_major dev_minor spare2
STATX_OUT = Struct("=QII16s256s")  # attr_valid attr_valid_nsec flags spare stat
OPEN_OUT = Struct("=QIi")  # fh open_flags backing_id
KSTATFS = Struct("=QQQQQIIII24s")  # blocks bfree bavail files ffree bsize namelen frsize padding spare
GETXATTR_OUT = Struct("=II")  # size padding
LSEEK_OUT = Struct("=Q")
IOCTL_OUT = Struct("=iIII")  # result flags in_iovs out_iovs; the data follow
INIT_OUT = Struct("=IIIIHHIIHHIIH22s")  # major minor max_readahead flags max_background congestion_threshold max_write
#                       time_gran max_pages map_alignment flags2 max_stack_depth request_timeout unused

INIT_IN = Struct("=IIII")  # major minor max_readahead flags
INIT_IN_EXT = Struct("=IIIII44s")  # the same, then flags2 unused (7.36)
FORGET_IN = Struct("=Q")
FORGET_ONE = Struct("=QQ")  # nodeid nlookup
BATCH_FORGET_IN = Struct("=II")  # count dummy
GETATTR_IN = Struct("=IIQ")  # getattr_flags dummy fh
STATX_IN = Struct("=IIQII")  # getattr_flags reserved fh sx_flags sx_mask
OPEN_IN = Struct("=II")  # flags open_flags
READ_IN = Struct("=QQIIQII")  # fh offset size read_flags lock_owner flags padding
READ_IN_START = Struct("=QQI")  # what the engine needs of it
RELEASE_IN = Struct("=QIIQ")  # fh flags release_flags lock_owner
FLUSH_IN = Struct("=QIIQ")  # fh unused padding lock_owner
GETXATTR_IN = Struct("=II")  # size padding
ACCESS_IN = Struct("=II")  # mask padding
IOCTL_IN = Struct("=QIIQII")  # fh flags cmd arg in_size out_size; the data follow
LSEEK_IN = Struct("=QQII")  # fh offset whence padding
INTERRUPT_IN = Struct("=Q")  # unique

# stat(2) and statx(2), spelled here because the module stat costs an import and lacks the second.
S_IFMT = 0o170000
S_IFSOCK, S_IFLNK, S_IFREG, S_IFBLK = 0o140000, 0o120000, 0o100000, 0o060000
S_IFDIR, S_IFCHR, S_IFIFO = 0o040000, 0o020000, 0o010000
FILE_TYPES = frozenset((S_IFSOCK, S_IFLNK, S_IFREG, S_IFBLK, S_IFDIR, S_IFCHR, S_IFIFO))
S_ISUID, S_ISGID = 0o4000, 0o2000
STATX_BASIC_STATS, STATX_BTIME = 0x7FF, 0x800

NAME_MAX = 255
PATH_MAX = 4096
XATTR_LIST_MAX = XATTR_SIZE_MAX = 65536
#: Errors from 512 on are the kernel's own (ERESTARTSYS…): a reply that holds one is refused *without* ending the request,
#: so whoever asked would hang (fs/fuse/dev.c, fuse_dev_do_write).
MAX_ERRNO = 511
