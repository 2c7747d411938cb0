"""``fuservice umount MOUNTPOINT``: unmount cleanly; if that fails, by force, saying so; lazily only if asked to."""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from fuservice.cli import records
from fuservice.errors import EXIT_OK, SystemCallError
from fuservice.linux import mountapi, mountinfo, statx
from fuservice.linux.fds import Fd
from fuservice.linux.servers import connection_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Final, NoReturn

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PATIENCE: Final = 1.0  # seconds: for a server to answer, for users of an aborted mount to notice
CONNECTION: Final = "/sys/fs/fuse/connections/{}/abort"
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
    _unmount(path, mount, lazy=options.lazy)
    if identity is not None:
        records.remove(identity)


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
        return statx.unique_id(statx.AT_FDCWD, path)
    except OSError:
        return None


def _unmount(path: str, mount: mountinfo.Mount, *, lazy: bool) -> None:
    flags = mountapi.UMOUNT_NOFOLLOW | (mountapi.MNT_DETACH if lazy else 0)
    error = _umount2(path, flags, mount)
    if error == errno.EBUSY:
        _say(f"{path}: busy: aborting its connection, whoever uses it will get errors")
        deadline = time.monotonic() + PATIENCE
        flags = mountapi.UMOUNT_NOFOLLOW | mountapi.MNT_FORCE
        while (error := _umount2(path, flags, mount)) == errno.EBUSY and time.monotonic() < deadline:
            time.sleep(0.02)  # whoever waited in it needs a moment to let go
    if error:
        way_out = "; somebody has a file or directory of it open (fuser -vm shows whom): end them, or use -l"
        reason = f"{os.strerror(error)}{way_out if error == errno.EBUSY else ''}"
        raise SystemCallError(f"{path}: cannot be unmounted: {reason}")


def _umount2(path: str, flags: int, mount: mountinfo.Mount) -> int:
    """Call umount2(2) and return its errno, but wait for it with a bound: of a fuseblk mount, it waits for the server.

    By then nobody sees the mount any more. A child waits, which may have to stay.
    """
    pid = os.fork()
    if pid == 0:
        _call(path, flags)
    with Fd(os.pidfd_open(pid)) as child:
        if not _ends(child, PATIENCE):
            _say(f"{path}: its server does not answer: aborting its connection")
            _abort(mount)
            if not _ends(child, PATIENCE):
                if any(there.mount_id == mount.mount_id for there in mountinfo.mounts()):
                    raise SystemCallError(f"{path}: cannot be unmounted: umount(2) does not return")
                _say(f"{path}: is unmounted, but its server keeps {mount.source} busy until it ends")
                return EXIT_OK
        result = os.waitid(os.P_PIDFD, child.fileno(), os.WEXITED)
    return result.si_status if result else 0


def _call(path: str, flags: int) -> NoReturn:
    os.closerange(0, 3)  # whoever reads what we print does not wait for this child
    try:
        mountapi.umount2(path, flags)
    except OSError as error:
        os._exit(error.errno or errno.EIO)
    os._exit(EXIT_OK)


def _ends(child: Fd, seconds: float) -> bool:
    poll = select.poll()
    poll.register(child.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _abort(mount: mountinfo.Mount) -> None:
    try:
        with open(CONNECTION.format(connection_number(mount.device)), "wb") as abort:  # noqa: PTH123
            abort.write(b"1")
    except OSError:
        return  # fusectl is not mounted


def _say(sentence: str) -> None:
    print(f"fuservice: {sentence}", file=sys.stderr)
