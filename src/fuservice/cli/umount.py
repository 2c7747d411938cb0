"""``fuservice umount MOUNTPOINT``: unmount cleanly; if that fails, by force, saying so; lazily only if asked to."""

from __future__ import annotations

import errno
import os
import sys

from fuservice.errors import SystemCallError
from fuservice.helper import record
from fuservice.linux import mountapi, mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


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
    # Without resolving the last component: realpath(3) would ask the filesystem, and hang where its server does.
    parent, name = os.path.split(os.path.abspath(options.mount_point))  # noqa: PTH100
    path = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
    mount = next((m for m in reversed(mountinfo.mounts()) if m.mount_point == path), None)
    if mount is None:
        raise SystemCallError(f"{options.mount_point}: nothing is mounted there")
    if mount.fstype.partition(".")[0] not in ("fuse", "fuseblk"):
        raise SystemCallError(f"{options.mount_point}: is a mount of {mount.fstype}, not of FUSE: use umount(8)")
    identity = _identity(path)
    _unmount(path, lazy=options.lazy)
    if identity is not None:
        record.remove(identity)


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
    try:
        mountapi.umount2(path, mountapi.UMOUNT_NOFOLLOW | mountapi.MNT_FORCE)
    except OSError as error:
        way_out = "; somebody has a file or directory of it open (fuser -vm shows whom): end them, or use -l"
        reason = f"{error.strerror}{way_out if error.errno == errno.EBUSY else ''}"
        raise SystemCallError(f"{path}: cannot be unmounted: {reason}") from None
