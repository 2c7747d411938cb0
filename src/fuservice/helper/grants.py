"""Grants: the files that a service may ask for, pinned before we talk to it.

Each is found once by the caller's path, with the caller's rights, before connecting. An OPEN is a look-up on the exact
bytes that the caller typed; a hit gives a fresh open file description of the pinned inode. No path of the service's is ever
resolved.
"""

from __future__ import annotations

import errno
import os
import stat

from fuservice.errors import RefusalError, shortened
from fuservice.helper.manifest import SOURCE
from fuservice.linux import blockdev
from fuservice.linux.fds import Fd
from fuservice.linux.openat2 import RESOLVE_NO_MAGICLINKS, openat2
from fuservice.linux.statfs import filesystem_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.helper.manifest import Manifest, Rule
    from fuservice.helper.request import Request

MOST_OPENS: Final = 4
BLOCK_SIZES: Final = (512, 1024, 2048, 4096)  # bytes
O_LARGEFILE: Final = 0o100000  # what a 32-bit server says; os.O_LARGEFILE is 0 on 64 bits
HARMLESS_FLAGS: Final = os.O_EXCL | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
ALLOWED_FLAGS: Final = os.O_ACCMODE | HARMLESS_FLAGS | O_LARGEFILE

#: Filesystems whose files are handles on the kernel, not data (statfs f_type, linux/magic.h).
KERNEL_FILESYSTEMS: Final = {
    0x9FA0: "proc", 0x62656572: "sysfs", 0x64626720: "debugfs", 0x74726163: "tracefs", 0x62656570: "configfs",
    0x27E0EB: "cgroup", 0x63677270: "cgroup2", 0x1CD1: "devpts", 0xCAFE4A11: "bpf", 0x73636673: "securityfs",
    0xDE5E81E4: "efivarfs", 0x6E736673: "nsfs", 0x50495045: "pipefs", 0x534F434B: "sockfs",
}  # fmt: skip


def _kind_name(mode: int) -> str:
    names = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a character device",
             stat.S_IFBLK: "a block device", stat.S_IFREG: "a regular file"}  # fmt: skip
    return names.get(stat.S_IFMT(mode), "of an unknown kind")


class Grant:
    """One file that may be opened; owns the descriptor that pins it."""

    def __init__(self, path: str, rule: Rule, *, writable: bool) -> None:
        """Pin *path*. What is wrong with it is kept: the service hears of it when it asks."""
        self.path = path
        self._rule, self._writable, self._opens = rule, writable, 0
        self._refusal: RefusalError | None = None
        self._block_size_before: int | None = None
        self._pin: Fd | None = None
        try:
            # Safe: the caller's own path and rights, and O_PATH opens nothing: a FIFO does not block, a device does not act.
            # A link of /proc leads to what some process has open, whatever its name may be: it is not followed.
            self._pin = openat2(path, os.O_PATH, RESOLVE_NO_MAGICLINKS)
            self._status = os.fstat(self._pin.fileno())
            self._judge()
            if rule.kind == "loop" and stat.S_ISREG(self._status.st_mode):
                self._become_loop_device()
        except OSError as error:
            self._refusal = RefusalError.of(path, error)
        except RefusalError as refusal:
            self._refusal = refusal

    def _judge(self) -> None:
        assert self._pin is not None
        mode = self._status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES
            raise RefusalError(number, f"{self.path}: is {_kind_name(mode)}, expected a regular file or a block device")
        expected = {"file": stat.S_IFREG, "block": stat.S_IFBLK}.get(self._rule.kind, stat.S_IFMT(mode))
        if stat.S_IFMT(mode) != expected:
            raise RefusalError(errno.EACCES, f"{self.path}: is {_kind_name(mode)}, expected {_kind_name(expected)}")
        # A block device's file may lie on devtmpfs; it is the device that is read, not the filesystem.
        if stat.S_ISREG(mode) and (name := KERNEL_FILESYSTEMS.get(filesystem_type(self._pin.fileno()))):
            sentence = f"{self.path}: lies on {name}: its files are handles on the kernel, not data"
            raise RefusalError(errno.EACCES, sentence)

    def _become_loop_device(self) -> None:
        """Pin a loop device over the file in its place; the device is gone when the last who has it open closes it."""
        with self._reopen(os.O_RDWR if self._writable else os.O_RDONLY) as file:
            device = blockdev.loop_device(file.fileno(), read_only=not self._writable)
        assert self._pin is not None
        self._pin.close()
        self._pin, self._status = device, os.fstat(device.fileno())

    @property
    def is_block_device(self) -> bool:
        """Whether the pinned file is one, and may be opened."""
        return self._refusal is None and stat.S_ISBLK(self._status.st_mode)

    def open(self, flags: int, *, block_device: bool) -> Fd:
        """Return a fresh open file description; RefusalError where *flags*, kind or count are not granted."""
        if self._refusal is not None:
            raise self._refusal
        if flags & ~ALLOWED_FLAGS:
            raise RefusalError(errno.EACCES, f"{self.path}: open flags {flags & ~ALLOWED_FLAGS:#o} are never granted")
        access = flags & os.O_ACCMODE
        if access not in (os.O_RDONLY, os.O_RDWR):
            raise RefusalError(errno.EACCES, f"{self.path}: opening for writing only is never granted")
        if access == os.O_RDWR and not self._writable:
            raise RefusalError(errno.EROFS, f"{self.path}: {os.strerror(errno.EROFS)} (it was granted for reading)")
        if block_device and not self.is_block_device:
            raise RefusalError.of(self.path, errno.ENOTBLK)
        if self._opens >= MOST_OPENS:
            sentence = f"{self.path}: was opened {MOST_OPENS} times, which is the most a service gets"
            raise RefusalError(errno.EMFILE, sentence)
        self._opens += 1
        return self._reopen(access | (flags & os.O_EXCL if self.is_block_device else 0))

    def _reopen(self, flags: int) -> Fd:
        assert self._pin is not None
        try:
            # Safe: this link of our own leads to the pinned inode, not to a name; the kernel checks the caller's
            # permission again. O_NONBLOCK: a device without a medium answers at once.
            fd = Fd(os.open(f"/proc/self/fd/{self._pin.fileno()}", flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
        except OSError as error:
            raise RefusalError.of(self.path, error) from None
        if not os.path.samestat(os.fstat(fd.fileno()), self._status):
            fd.close()
            raise RefusalError(errno.EACCES, f"{self.path}: changed while it was opened")
        os.set_blocking(fd.fileno(), True)
        return fd

    def set_block_size(self, fd: Fd, size: int) -> None:
        """Set the block size (bytes) of the device *fd*, which open() gave; RefusalError where it is none that disks have."""
        if size not in BLOCK_SIZES:
            raise RefusalError(errno.EINVAL, f"{self.path}: block size {size}, expected one of {BLOCK_SIZES}")
        try:
            before = blockdev.block_size(fd.fileno())
            blockdev.set_block_size(fd.fileno(), size)
        except OSError as error:
            raise RefusalError.of(f"{self.path}: setting block size {size}", error) from None
        self._block_size_before = before if self._block_size_before is None else self._block_size_before

    def restore(self) -> None:
        """Give a device the block size back that it had before: nothing was mounted."""
        if self._block_size_before is not None and self._pin is not None:
            try:
                with self._reopen(os.O_RDONLY) as fd:
                    blockdev.set_block_size(fd.fileno(), self._block_size_before)
            except (OSError, RefusalError):
                return  # it is gone, or claimed by somebody else: then its block size is theirs

    def close(self) -> None:
        """Unpin; idempotent."""
        if self._pin is not None:
            self._pin.close()


class Grants:
    """The table: the exact bytes of a word, and what it stands for."""

    def __init__(self, request: Request, manifest: Manifest) -> None:
        """Pin every file that *manifest* says *request* names."""
        read_only = request.options.read_only or manifest.read_only
        self.source = os.fsencode(request.source) if request.source else None
        self._table: dict[bytes | None, Grant] = {}
        for name, rule in manifest.rules.items():
            word = request.source if name == SOURCE else request.options.value(name)
            if word and os.fsencode(word) not in self._table:
                self._table[os.fsencode(word)] = Grant(word, rule, writable=rule.writable and not read_only)

    def find(self, path: bytes) -> Grant:
        """Return the grant for exactly *path*; RefusalError(EACCES) where there is none, without touching the path."""
        if path not in self._table:
            shown = shortened(os.fsdecode(path))
            sentence = f"{shown}: Permission denied (the fuse server asks for a file that was not granted)"
            raise RefusalError(errno.EACCES, sentence)
        return self._table[path]

    @property
    def source_is_block_device(self) -> bool:
        """Whether the source was granted, and is a block device: the only source that fuseblk may have."""
        return self.source in self._table and self._table[self.source].is_block_device

    def restore(self) -> None:
        """Undo what was done to devices."""
        for grant in self._table.values():
            grant.restore()

    def close(self) -> None:
        """Close the pins; idempotent."""
        for grant in self._table.values():
            grant.close()
