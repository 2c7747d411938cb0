"""Detaching what is mounted and served by nobody any more, in the mount namespace that we are in.

A connection is known by the device number that mountinfo shows. Such a number is given out again once its superblock has
gone, so a mount is detached only if the kernel itself says that nobody serves it, while we hold that very mount by a
descriptor: a request to a connection without a server fails at once.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress

from fuservice.errors import FuserviceError
from fuservice.launch.waiting import ends_within
from fuservice.linux import mountapi, mountinfo, statx
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

    from fuservice.linux.mountinfo import Mount

    #: Unmounts, lazily, what is at a path; FuserviceError or OSError with the reason where it does not.
    Unmount = Callable[[str], None]

PATIENCE: Final = 2.0  # seconds for the answer of a server that does live
#: What the kernel answers where no process has the fuse device open any more; and where the connection was aborted.
_DEAD: Final = (errno.ENOTCONN, errno.ECONNABORTED)
_UNKNOWN: Final = 255


def detach_dead(device: str, say: Callable[[str], None], unmount: Unmount | None = None) -> list[str]:
    """Detach the mounts of the connection *device* ("0:40") that nobody serves; return where they were.

    With our own rights, by descriptor; or by *unmount*, for those who have none. *say* takes a sentence about each that
    stays. What something else is mounted upon stays too: by path, nobody gets to it. Blocks for as long as the way to the
    mount point does.
    """
    detached = []
    for mount in reversed([mount for mount in mountinfo.mounts() if mount.device == device and is_fuse(mount)]):
        try:
            with _pinned(mount) as pin:
                if statx.mount_id(pin.fileno()) != mount.mount_id or not is_dead(pin.fileno(), mount):
                    continue
                if unmount is None:
                    mountapi.detach(pin.fileno())
            if unmount is not None:  # without the pin: it goes by the path, and may want to see who is in it
                unmount(mount.mount_point)
        except (FuserviceError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            say(f"{mount.mount_point}: its server is dead, and it cannot be detached: {reason}")
        else:
            detached.append(mount.mount_point)
    return detached


def is_fuse(mount: Mount) -> bool:
    """Say whether *mount* is one of FUSE."""
    return mount.fstype.partition(".")[0] in ("fuse", "fuseblk")


def device_at(path: str) -> str:
    """Return the device number of the FUSE mount at *path*; "" where there is none. No server is asked."""
    try:
        with Fd(os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
            number = statx.mount_id(fd.fileno())
    except OSError:
        return ""
    return next((mount.device for mount in mountinfo.mounts() if mount.mount_id == number and is_fuse(mount)), "")


def _pinned(mount: Mount) -> Fd:
    """Return a descriptor of what is at the mount point: while it is open, that superblock lives, and so does its number."""
    return Fd(os.open(mount.mount_point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))


def is_dead(fd: int, mount: Mount) -> bool:
    """Say whether nobody serves *mount*, which descriptor *fd* lies on. Asks for its size, which no cache of the kernel's knows.

    A child asks: of a server that lives and does not answer, it waits for no longer than PATIENCE.
    """
    pid = os.fork()
    if pid == 0:
        _ask(fd, mount)
    if not ends_within(pid, PATIENCE):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in _DEAD


def _ask(fd: int, mount: Mount) -> NoReturn:
    code = _UNKNOWN
    try:
        _become_owner(mount)
        os.fstatvfs(fd)
        code = 0
    except OSError as error:
        code = error.errno or _UNKNOWN
    finally:
        os._exit(code)


def _become_owner(mount: Mount) -> None:
    """Be the one who mounted it: of all others the kernel, unless it is told otherwise, passes no request on (allow_other)."""
    options = dict(option.partition("=")[::2] for option in mount.super_options.split(","))
    uid, gid = int(options.get("user_id", "0")), int(options.get("group_id", "0"))
    if (uid, gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):  # then we can only ask as who we are
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
