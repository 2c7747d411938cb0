"""Attaching: from checked values to a mount. Nothing here comes from a service unchecked, and what is ours comes last.

The new mount API makes the mount detached and attaches it by two descriptors; mount(2) is the fall-back for kernels without it.
"""

from __future__ import annotations

import errno
import os

from fuservice.errors import RefusalError
from fuservice.linux import mountapi, statx
from fuservice.linux.fds import Fd
from fuservice.proto import layouts
from fuservice.proto.options import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from fuservice.helper.mountpoint import MountPoint

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
    """All that a mount needs, checked: the kernel's filesystem (fuse, fuseblk), what mountinfo shows, MS_ flags, options."""

    def __init__(
        self, *, fuse_device: Fd, fuseblk: bool, subtype: str, source: str, flags: int, options: dict[str, str | None]
    ) -> None:
        self.fuse_device, self.fstype = fuse_device, "fuseblk" if fuseblk else "fuse"
        self.subtype, self.source, self.flags, self.options = subtype, source, flags, options


class Mount(Fd):
    """A descriptor of a mount's root, and how it is undone. While it is open, umount(8) finds the mount busy."""

    __slots__ = ()

    def detach(self) -> None:
        """Detach the mount: by descriptor, whatever its path shows by now. The descriptor stays open."""
        mountapi.detach(self.fileno())


def attach(plan: Plan, mount_point: MountPoint, *, new_api: bool = True) -> Mount:
    """Mount as *plan* says on *mount_point*, with our own rights. Other back ends are called as this one is (``backends``).

    RefusalError with the kernel's errno and words where mounting fails.
    ``new_api=False`` goes by mount(2) at once; otherwise that happens only where the kernel lacks fsopen(2) or "subtype".
    """
    # Safe: both ends are descriptors that were judged; the last look makes sure that the caller's path still means this.
    mount_point.check_unmoved()
    options = plan.options | {  # ours come last, so they hold
        "fd": str(plan.fuse_device.fileno()), "rootmode": f"{mount_point.kind:o}",
        "user_id": str(os.getuid()), "group_id": str(os.getgid()),
    }  # fmt: skip
    mount = attach_by_descriptors(plan, options, mount_point) if new_api else None
    return mount or _attach_by_mount2(plan, options, mount_point)


def attach_by_descriptors(plan: Plan, options: dict[str, str | None], mount_point: MountPoint | Fd) -> Mount | None:
    """Return the mount, made with *options*, those of the plan among them; None where this kernel lacks the new mount API, or
    its fuse the key "subtype"."""
    try:
        context = mountapi.fsopen(plan.fstype)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return None
        raise RefusalError.of(f"opening filesystem context for {plan.fstype}", error) from None
    words: dict[str, str | None] = {"subtype": plan.subtype} if plan.subtype else {}
    words |= {"source": plan.source} | {key: None for flag, key in _SUPER_FLAGS.items() if plan.flags & flag} | options
    with context:
        try:
            for key, value in words.items():
                mountapi.fsconfig_set(context.fileno(), key, value)
            mountapi.fsconfig_create(context.fileno())
            attributes = sum(attribute for flag, attribute in _ATTRIBUTES.items() if plan.flags & flag)
            mount = Mount(mountapi.fsmount(context.fileno(), attributes).take())
        except OSError as error:
            if key == "subtype" and error.errno == errno.EINVAL:
                return None
            raise RefusalError.of("creating filesystem", error, details=mountapi.messages(context.fileno())) from None
    try:
        mountapi.move_mount(mount.fileno(), mount_point.fileno())
    except OSError as error:
        mount.close()  # it was never attached: closing it ends it
        raise RefusalError.of("attaching the mount", error) from None
    return mount


def _attach_by_mount2(plan: Plan, options: dict[str, str | None], mount_point: MountPoint) -> Mount:
    shown = f"{plan.fstype}.{plan.subtype}" if plan.subtype else plan.fstype
    data = ",".join(join(key, value) for key, value in options.items())
    try:
        # Safe: flags hold only MS_ALLOWED bits, so this can only be a new mount; the target is our own link to the pin.
        mountapi.mount(plan.source, f"/proc/self/fd/{mount_point.fileno()}", shown, plan.flags, data)
    except OSError as error:
        raise RefusalError.of("mount", error) from None
    # mount(2) gives no descriptor: it is what the path shows now, if that is another mount.
    mount = Mount(mount_point.look().take())
    if statx.mount_id(mount.fileno()) == statx.mount_id(mount_point.fileno()):
        mount.close()
        raise RefusalError(errno.ESTALE, f"{mount_point.path}: the mount was undone at once by somebody else")
    return mount
