"""A mount namespace of one's own, for users whom nobody lets mount in the machine's: the mount is seen by those who are in it.

In a user namespace where only their own ids exist, a user may mount FUSE filesystems (Linux 4.18), whose device must be opened
inside. A small process, the holder, makes the namespaces, mounts there, and keeps them alive for as long as the mount is of use;
others join it by its pidfd. Root needs no user namespace: it has the rights already, and would lose those over others' files.

The holder has all rights in its namespace, over nothing but the mount: any process of the same user could make itself the same.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from fuservice.backends.backend import Backend
from fuservice.backends.root import Root
from fuservice.errors import RefusalError
from fuservice.helper.attach import attach
from fuservice.linux import capabilities, fusedev, mountapi, mountinfo, namespaces, pivot
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from fuservice.helper.attach import Mount, Plan
    from fuservice.helper.mountpoint import MountPoint

#: What an administrator can forbid it by: the file, the value that forbids, and how it is called.
_SWITCHES: Final = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns is 1"),
)  # fmt: skip
NO_NAMESPACE: Final = "no user namespace can be made"
_LONGEST_REASON: Final = 1024  # bytes


class Namespace(Backend):
    """In the namespaces of a holder (``holder``), it mounts as root does."""

    name = "namespace"

    def why_not(self) -> str | None:
        """Try it: make the namespaces, and a mount that nobody serves and nobody sees, in a process that ends."""
        try:
            reading, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
            with reading:
                with writing:
                    pid = os.fork()
                    if pid == 0:
                        _try(writing.fileno())
                told = os.read(reading.fileno(), _LONGEST_REASON)
            os.waitpid(pid, 0)
        except OSError as error:
            return f"no process can be started to try it: {error.strerror}"
        return told.decode("utf-8", "backslashreplace") or None

    def attach(self, plan: Plan, mount_point: MountPoint) -> Mount:
        return attach(plan, mount_point)

    def detach(self, mount_point: str, *, lazy: bool) -> None:
        from fuservice.backends import holder  # which imports us

        holder.find(mount_point).unmount(lazy=lazy)


def enter_new() -> None:
    """Move this process, which has one thread, into a mount namespace of its own in which it may mount. OSError if it cannot."""
    if Root().why_not() is None:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        pivot.make_all_slaves()
        return
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)  # here, mounts are slaves from the start
    namespaces.map_own_ids(uid, gid)


def give_up_rights() -> None:
    """Let what is executed next have no rights in a user namespace that was joined: not even where its uid is 0."""
    capabilities.drop_bounding_set()
    capabilities.clear_ambient()


def _try(report: int) -> NoReturn:
    """Be the process that tries it."""
    step = NO_NAMESPACE
    try:
        enter_new()
        step = f"{fusedev.DEVICE} cannot be opened"
        with fusedev.open_device() as device, mountapi.fsopen("fuse") as context:
            step = "in a user namespace of its own, this user may not mount"
            for key, value in (
                ("fd", device.fileno()),
                ("rootmode", 0o40000),
                ("user_id", os.getuid()),
                ("group_id", os.getgid()),
            ):
                mountapi.fsconfig_set(context.fileno(), key, f"{value:o}" if key == "rootmode" else str(value))
            mountapi.fsconfig_create(context.fileno())
            mountapi.fsmount(context.fileno(), mountapi.MOUNT_ATTR_NOSUID).close()
    except OSError as error:
        os.write(report, os.fsencode(f"{step}: {error.strerror}{_switches()}")[:_LONGEST_REASON])
    finally:
        os._exit(os.EX_OK)


def _switches() -> str:
    """Return what an administrator has switched off, in brackets."""
    found = []
    for path, value, words in _SWITCHES:
        with suppress(OSError), open(path, encoding="ascii") as file:  # noqa: PTH123
            if file.read().strip() == value:
                found.append(words)
    return f" ({', '.join(found)})" if found else ""


def mounted(path: str, pid: int | str = "self") -> mountinfo.Mount | None:
    """Return the topmost FUSE mount at *path* in the mount namespace of *pid*."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:  # noqa: PTH123
            found = [mount for mount in mountinfo.parse(file.read()) if mount.mount_point == path]
    except OSError:
        return None
    return found[-1] if found and found[-1].fstype.partition(".")[0] == "fuse" else None


def not_there(path: str) -> RefusalError:
    """Return the refusal that nothing private is mounted at *path*."""
    return RefusalError(errno.ENOENT, f"{path}: no private mount of yours is there")
