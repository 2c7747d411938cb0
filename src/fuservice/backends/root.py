"""Mounting with this process's own rights: CAP_SYS_ADMIN over the mount namespace that it is in."""

from __future__ import annotations

from fuservice.backends.backend import Backend
from fuservice.errors import RefusalError
from fuservice.helper.attach import attach
from fuservice.linux import capabilities, mountapi, nsfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.helper.attach import Mount, Plan
    from fuservice.helper.mountpoint import MountPoint


class Root(Backend):
    """What ``fuservicemount`` does: the helper's own way."""

    name = "root"

    def why_not(self) -> str | None:
        effective, _, _ = capabilities.capabilities()
        if not effective >> capabilities.CAP_SYS_ADMIN & 1:
            return "this process has no CAP_SYS_ADMIN (it is not root's)"
        try:
            nsfs.owner("/proc/self/ns/mnt").close()
        except PermissionError:
            return "its CAP_SYS_ADMIN does not reach the mount namespace, which belongs to an outer user namespace"
        except OSError:
            return None  # no /proc: the mount itself will say it
        return None

    def attach(self, plan: Plan, mount_point: MountPoint) -> Mount:
        return attach(plan, mount_point)

    def detach(self, mount_point: str, *, lazy: bool) -> None:
        try:
            mountapi.umount2(mount_point, mountapi.UMOUNT_NOFOLLOW | (mountapi.MNT_DETACH if lazy else 0))
        except OSError as error:
            raise RefusalError.of(f"{mount_point}: cannot be unmounted", error) from None
