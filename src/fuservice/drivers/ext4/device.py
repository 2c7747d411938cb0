"""The image: reads of known length at checked positions over a file descriptor that somebody else owns.

No other module of the driver makes a system call on the descriptor. What is in the page cache is read at once; for the
rest, where the engine has taught us how (:meth:`Device.wait_with`), a thread waits while others serve. The size is taken once, at opening: an image that
shrinks afterwards gives EIO, never short data; one that grows is not looked at beyond its old end.
"""

from __future__ import annotations

import errno
import os
import stat

from fuservice.drivers.ext4.damage import damaged
from fuservice.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, ParamSpec, TypeVar

    from fuservice.fuse.filesystem import Wait

    P = ParamSpec("P")
    T = TypeVar("T")

#: What preadv2(2) says with RWF_NOWAIT: not in the page cache; or the file's filesystem cannot tell whether it is.
_WOULD_BLOCK: Final = frozenset((errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL))


def _at_once(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return call(*args, **kwargs)


def size_of(fd: int) -> int:
    """Return the bytes behind *fd*, a regular file or block device; moves the position of a block device (nobody uses it)."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    if stat.S_ISBLK(status.st_mode):
        return os.lseek(fd, 0, os.SEEK_END)  # st_size of a device is 0
    raise ImageError("an image is a regular file or a block device; this is neither")


class Device:
    """*size* bytes from *offset* of the file behind *fd*, which it does not own. Positions count from *offset*."""

    __slots__ = ("_flags", "_perhaps", "_read", "_wait", "fd", "offset", "size")

    def __init__(self, fd: int, *, offset: int = 0, size: int | None = None) -> None:
        room = size_of(fd) - offset
        if offset < 0 or room < 0:
            raise ImageError(f"the filesystem would start at byte {offset}, but the image has only {room + offset}")
        self.fd, self.offset = fd, offset
        self.size = room if size is None else max(0, min(size, room))
        self._flags = 0
        self._read: Callable[[int, Sequence[memoryview], int, int], int] = os.preadv
        self._wait: Wait = _at_once
        self._perhaps: Wait = _at_once

    def wait_with(self, wait: Wait, perhaps: Wait) -> None:
        """Read by *wait* what would block, by *perhaps* where the kernel cannot say (fuse.filesystem, Filesystem.wait_with)."""
        self._flags, self._wait, self._perhaps = os.RWF_NOWAIT, wait, perhaps

    def read(self, position: int, length: int) -> bytes:
        """Return exactly *length* bytes at *position*; EIO where the image does not have them. Blocks on the disk."""
        self._check(position, length)
        whole = bytearray(length)
        self.read_into(position, memoryview(whole))
        return bytes(whole)

    def read_into(self, position: int, into: memoryview) -> None:
        """Fill *into* from *position*, without a copy in between; EIO where the image does not have the bytes."""
        length = len(into)
        if position < 0 or position + length > self.size:
            self._check(position, length)
        try:
            done = self._read(self.fd, (into,), self.offset + position, self._flags)
        except OSError as error:
            if not self._flags or error.errno not in _WOULD_BLOCK:
                raise
            if error.errno != errno.EAGAIN:  # as with overlayfs, tmpfs, NFS, FUSE
                self._flags, self._wait = 0, self._perhaps
                self._read = lambda *where: self._wait(os.preadv, *where)
            done = 0
        while done < length:  # the rest is on the disk, or, rarely, a signal came
            got = self._wait(os.preadv, self.fd, (into[done:],), self.offset + position + done)
            if not got:
                raise damaged(f"the image has shrunk: nothing at byte {position + done}")
            done += got

    def _check(self, position: int, length: int) -> None:
        if position < 0 or length < 0 or position + length > self.size:
            raise damaged(f"bytes {position} to {position + length} are beyond the image's {self.size}")
