"""``fuservice umount MOUNTPOINT``: unmount cleanly; if that fails, by force, saying so; lazily only if asked to."""

from __future__ import annotations

import errno
import os
import sys
import time

from fuservice.errors import SystemCallError
from fuservice.helper import record
from fuservice.linux import mountapi, mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Final

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PATIENCE: Final = 1.0  # seconds for users of an aborted mount to notice
MOST_LINKS: Final = 40  # path_resolution(7)


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("umount", help="unmount", description=__doc__)
    command.add_argument("mount_point", metavar="MOUNTPOINT")
    command.add_argument(
        "-l", "--lazy", action="store_true", help="detach now, even if busy: users of it keep it until they end"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Unmount. FuserviceError where nothing of ours is mounted there, or it cannot be unmounted."""
    path = place(options.mount_point)
    mount = _mounted(path)
    if mount is None:
        raise SystemCallError(f"{options.mount_point}: nothing is mounted there")
    if mount.fstype.partition(".")[0] not in ("fuse", "fuseblk"):
        raise SystemCallError(f"{options.mount_point}: is a mount of {mount.fstype}, not of FUSE: use umount(8)")
    identity = _identity(path)
    _unmount(path, lazy=options.lazy)
    if identity is not None:
        record.remove(identity)


def place(typed: str) -> str:
    """Return *typed* as mountinfo has it. Symbolic links are followed, but no mount is ever asked for its root.

    realpath(3) would ask, and hang where the server does.
    """
    path = os.path.abspath(typed)  # noqa: PTH100
    for _ in range(MOST_LINKS):
        parent, name = os.path.split(path)
        path = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
        if _mounted(path) is not None or not os.path.islink(path):  # noqa: PTH114
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))  # noqa: PTH115, PTH118, PTH120
    return path


def _mounted(path: str) -> mountinfo.Mount | None:
    """Return the topmost mount at *path*."""
    return next((mount for mount in reversed(mountinfo.mounts()) if mount.mount_point == path), None)


def _identity(path: str) -> int | None:
    try:
        return mountinfo.unique_id(mountinfo.AT_FDCWD, path)
    except OSError:
        return None


def _unmount(path: str, *, lazy: bool) -> None:
    flags = mountapi.UMOUNT_NOFOLLOW | (mountapi.MNT_DETACH if lazy else 0)
    try:
        mountapi.umount2(path, flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise SystemCallError(f"{path}: cannot be unmounted: {error.strerror}") from None
        _force(path)


def _force(path: str) -> None:
    """Abort the connection to the server, so that whoever waits for it gets an error, and unmount again."""
    print(f"fuservice: {path}: busy: aborting its connection, whoever uses it will get errors", file=sys.stderr)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            mountapi.umount2(path, mountapi.UMOUNT_NOFOLLOW | mountapi.MNT_FORCE)
        except OSError as error:
            if error.errno == errno.EBUSY and time.monotonic() < deadline:
                time.sleep(0.02)  # whoever waited in it needs a moment to let go
                continue
            way_out = "; somebody has a file or directory of it open (fuser -vm shows whom): end them, or use -l"
            reason = f"{error.strerror}{way_out if error.errno == errno.EBUSY else ''}"
            raise SystemCallError(f"{path}: cannot be unmounted: {reason}") from None
        return
