"""The mount point: pinned by descriptor before we connect, and used by descriptor to the end."""

from __future__ import annotations

import errno
import os
import stat

from fuservice.errors import RefusalError, shortened
from fuservice.linux.fds import Fd
from fuservice.proto import layouts


class MountPoint:
    """The word that the caller typed as mount point, and the directory or regular file that it names now."""

    def __init__(self, path: str | None) -> None:
        """Pin *path*. What is wrong with it is kept: the service hears of it when it names the mount point."""
        self.path, self.kind = path, 0
        self._pin: Fd | None = None
        self._refusal: RefusalError | None = None
        if path is None:
            return
        try:
            self._pin = self.look()
        except OSError as error:
            self._refusal = RefusalError.of(path, error)
            return
        self._status = os.fstat(self._pin.fileno())
        self.kind = stat.S_IFMT(self._status.st_mode)
        if self.kind == stat.S_IFLNK:
            sentence = f"{path}: is a symbolic link: name the directory that it points to"
            self._refusal = RefusalError(errno.ELOOP, sentence)
        elif self.kind not in (stat.S_IFDIR, stat.S_IFREG):
            self._refusal = RefusalError(errno.EACCES, f"{path}: Mount point must be directory or regular file.")

    def look(self) -> Fd:
        """Return an O_PATH descriptor of what the path shows now, which the caller owns. No request reaches a server."""
        assert self.path is not None
        # Safe: O_PATH opens nothing; O_NOFOLLOW so that what was typed is what is covered.
        return Fd(os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))

    def check_named(self, named: bytes, expected: int, words: list[bytes]) -> None:
        """Judge a service's mount point command by itself; RefusalError with libfuse's errno and words.

        *named* must be the caller's word, *expected* S_IFDIR, S_IFREG, or 0 for either; *words* are all those that the
        service was told.
        """
        shown = shortened(os.fsdecode(named))
        if self.path is None or named != os.fsencode(self.path):
            if named not in words:
                raise RefusalError(errno.EINVAL, "mount point must be in command line arguments")
            raise RefusalError(
                errno.EINVAL, f"{shown}: the mount point is the last argument, `{self.path}', and no other"
            )
        if expected not in (0, layouts.S_IFDIR, layouts.S_IFREG):
            raise RefusalError(errno.EINVAL, f"{shown}: weird expected format 0{expected:o}")

    def check_pinned(self, expected: int = 0) -> None:
        """Judge what the caller's word stands for: RefusalError unless it can be mounted on, and is what was *expected*."""
        if self._refusal is not None:
            raise self._refusal
        if expected not in (0, self.kind):
            raise RefusalError.of(str(self.path), errno.ENOTDIR if expected == layouts.S_IFDIR else errno.EISDIR)

    def fileno(self) -> int:
        """Return the pinned descriptor, an O_PATH one, which stays ours."""
        if self._pin is None:
            raise RefusalError(errno.ENOENT, "there is no mount point")
        return self._pin.fileno()

    def check_unmoved(self) -> None:
        """Make sure that the path still leads to what was pinned; RefusalError(ESTALE) where it was exchanged meanwhile."""
        why = "it is no longer what it was at the start"
        try:
            with self.look() as now:
                if os.path.samestat(os.fstat(now.fileno()), self._status):
                    return
        except OSError as error:
            why = str(error.strerror)
        raise RefusalError(errno.ESTALE, f"{self.path}: was exchanged meanwhile: {why}")

    def close(self) -> None:
        """Unpin; idempotent."""
        if self._pin is not None:
            self._pin.close()
