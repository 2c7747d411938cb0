"""Attaching: from checked values to a mount. Nothing here comes from a service unchecked, and what is ours comes last.

The new mount API makes the mount detached and attaches it by two descriptors; mount(2) is the fall-back for kernels without it.
"""

from __future__ import annotations

import errno
import os

from fuservice.errors import RefusalError
from fuservice.helper import record
from fuservice.linux import mountapi, mountinfo
from fuservice.proto import layouts
from fuservice.proto.options import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

    from fuservice.helper.mountpoint import MountPoint
    from fuservice.helper.options import KernelOptions
    from fuservice.linux.fds import Fd

_ATTRIBUTES: Final[Mapping[int, int]] = {
    layouts.MS_RDONLY: mountapi.MOUNT_ATTR_RDONLY, layouts.MS_NOSUID: mountapi.MOUNT_ATTR_NOSUID,
    layouts.MS_NODEV: mountapi.MOUNT_ATTR_NODEV, layouts.MS_NOEXEC: mountapi.MOUNT_ATTR_NOEXEC,
    layouts.MS_NOATIME: mountapi.MOUNT_ATTR_NOATIME, layouts.MS_NODIRATIME: mountapi.MOUNT_ATTR_NODIRATIME,
    layouts.MS_NOSYMFOLLOW: mountapi.MOUNT_ATTR_NOSYMFOLLOW, layouts.MS_STRICTATIME: mountapi.MOUNT_ATTR_STRICTATIME,
}  # fmt: skip
#: Bits that the superblock must know too: MOUNT_ATTR_RDONLY alone leaves it writable.
_SUPER_FLAGS: Final[Mapping[int, str]] = {
    layouts.MS_RDONLY: "ro", layouts.MS_SYNCHRONOUS: "sync", layouts.MS_DIRSYNC: "dirsync",
}  # fmt: skip


class Plan:
    """All that a mount needs, checked."""

    def __init__(
        self, *, fuse_device: Fd, subtype: str, source: str, flags: int, options: KernelOptions, fuseblk: bool
    ) -> None:
        self.fuse_device, self.subtype, self.source = fuse_device, subtype, source
        self.flags, self.options, self.fuseblk = flags, options, fuseblk

    @property
    def fstype(self) -> str:
        """The kernel's filesystem."""
        return "fuseblk" if self.fuseblk else "fuse"

    @property
    def full_fstype(self) -> str:
        """The filesystem as mountinfo shows it."""
        return f"{self.fstype}.{self.subtype}" if self.subtype else self.fstype

    def ours(self, mount_point_kind: int) -> Iterator[tuple[str, str]]:
        """Yield the keys that no one else sets: they come last, so they hold."""
        yield "fd", str(self.fuse_device.fileno())
        yield "rootmode", f"{mount_point_kind:o}"
        yield "user_id", str(os.getuid())
        yield "group_id", str(os.getgid())


class Attached:
    """A mount that is attached, and can be detached again without its name."""

    def __init__(self, mount: Fd | None, mount_id: int) -> None:
        self._mount, self._id = mount, mount_id

    def detach(self) -> None:
        """Detach it, whatever lies on it by now. By descriptor, or (mount(2) gave none) at the place where its id is."""
        if self._mount is not None:
            mountapi.detach(self._mount.fileno())
            return
        for mount in mountinfo.mounts():
            if mount.mount_id == self._id:
                mountapi.umount2(mount.mount_point, mountapi.MNT_DETACH | mountapi.UMOUNT_NOFOLLOW)

    def record(self, facts: Mapping[str, str]) -> None:
        """Write *facts* down for ``fuservice list``, where a descriptor says which mount this is."""
        if self._mount is not None:
            record.write(self._mount.fileno(), {**facts, "namespace": record.namespace()})

    def close(self) -> None:
        """Let the mount be: while we hold it, umount(8) would find it busy."""
        if self._mount is not None:
            self._mount.close()


def attach(plan: Plan, mount_point: MountPoint, *, new_api: bool = True) -> Attached:
    """Mount as *plan* says on *mount_point*. RefusalError with the kernel's errno and words where that fails.

    ``new_api=False`` goes by mount(2) at once; otherwise that happens only where the kernel lacks fsopen(2) or "subtype".
    """
    # Safe: both ends are descriptors that were judged; the last look makes sure that the caller's path still means this.
    mount_point.check_unmoved()
    if new_api:
        try:
            return _attach_by_descriptors(plan, mount_point)
        except _NoNewApiError:
            pass
    return _attach_by_mount2(plan, mount_point)


class _NoNewApiError(Exception):
    """This kernel lacks the new mount API, or its fuse lacks the key "subtype"."""


def _attach_by_descriptors(plan: Plan, mount_point: MountPoint) -> Attached:
    try:
        context = mountapi.fsopen(plan.fstype)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise _NoNewApiError from None
        raise _refusal(f"opening filesystem context for {plan.fstype}", error, []) from None
    with context:
        try:
            _configure(context.fileno(), plan, mount_point)
            mountapi.fsconfig_create(context.fileno())
            attributes = sum(attribute for flag, attribute in _ATTRIBUTES.items() if plan.flags & flag)
            mount = mountapi.fsmount(context.fileno(), attributes)
        except OSError as error:
            raise _refusal("creating filesystem", error, mountapi.messages(context.fileno())) from None
    try:
        mountapi.move_mount(mount.fileno(), mount_point.fileno())
    except OSError as error:
        mount.close()  # it was never attached: closing it ends it
        raise _refusal("attaching the mount", error, []) from None
    return Attached(mount, 0)


def _configure(context: int, plan: Plan, mount_point: MountPoint) -> None:
    try:
        if plan.subtype:
            mountapi.fsconfig_set_string(context, "subtype", plan.subtype)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _NoNewApiError from None
        raise
    mountapi.fsconfig_set_string(context, "source", plan.source)
    for flag, key in _SUPER_FLAGS.items():
        if plan.flags & flag:
            mountapi.fsconfig_set_flag(context, key)
    for key, value in plan.options.pairs():
        if value is None:
            mountapi.fsconfig_set_flag(context, key)
        else:
            mountapi.fsconfig_set_string(context, key, value)
    for key, value in plan.ours(mount_point.kind):
        mountapi.fsconfig_set_string(context, key, value)


def _attach_by_mount2(plan: Plan, mount_point: MountPoint) -> Attached:
    words = [join(key, value) for key, value in (*plan.options.pairs(), *plan.ours(mount_point.kind))]
    before = {mount.mount_id for mount in mountinfo.mounts()}
    try:
        # Safe: flags hold only MS_ALLOWED bits, so this can only be a new mount; the target is our own link to the pin.
        target = f"/proc/self/fd/{mount_point.fileno()}"
        mountapi.mount(plan.source, target, plan.full_fstype, plan.flags, ",".join(words))
    except OSError as error:
        raise _refusal("mount", error, []) from None
    new = {mount.mount_id for mount in mountinfo.mounts() if mount.fstype == plan.full_fstype} - before
    # Others mount too, perhaps the same type: ours is what lies on our place now, and that it is new makes it sure.
    top = mount_point.look()
    if mountinfo.mount_id(top.fileno()) in new:
        return Attached(top, 0)
    top.close()  # something was laid on it already
    return Attached(None, new.pop() if len(new) == 1 else -1)


def _refusal(step: str, error: OSError, messages: list[str]) -> RefusalError:
    number = error.errno or errno.EIO
    return RefusalError(number, f"{step}: {os.strerror(number)}", details=messages)
