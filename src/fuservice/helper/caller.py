"""What an ordinary user may have mounted, and where. Root may what it types; for others each check is here.

The checks are libfuse's (fusermount3's), on the pinned descriptor and never on a path.
"""

from __future__ import annotations

import errno
import os
import stat

from fuservice.errors import RefusalError
from fuservice.linux.statfs import filesystem_type
from fuservice.proto import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.helper.fuseconf import FuseConf
    from fuservice.helper.mountpoint import MountPoint

#: Filesystems over which an ordinary user may mount: f_type of statfs(2), linux/magic.h and the filesystems' own sources.
MOUNT_OVER: Final = frozenset({
    0x61756673, 0x00000187, 0xCA451A4E, 0x9123683E, 0x00C36400, 0xFF534D42, 0x0000F15F, 0x2011BAB0, 0x0000EF53,
    0xF2F52010, 0x65735546, 0x01161970, 0x47504653, 0x0000482B, 0x000072B6, 0x3153464A, 0x0BD00BD0, 0x00004D44,
    0x0000564C, 0x00006969, 0x00003434, 0x5346544E, 0x7366746E, 0x5346414F, 0x794C7630, 0xAAD7AAEA, 0x52654973,
    0xFE534D42, 0x73717368, 0x01021994, 0x24051905, 0x18031977, 0x736675005346544E, 0x58465342, 0x2FC12FC1, 0x858458F6,
})  # fmt: skip


class Caller:
    """Who asks, and what the administrator allows them."""

    def __init__(self, conf: FuseConf, uid: int | None = None) -> None:
        """*uid* is the real one of the process by default: what the kernel will show as the mount's owner."""
        self.uid = os.getuid() if uid is None else uid
        self.is_root = self.uid == 0  # then none of the checks apply
        self.may_allow_other = self.is_root or conf.user_allow_other
        self._mount_max = conf.mount_max

    @property
    def abilities(self) -> int:
        """The flags of our hello."""
        return self.is_root * layouts.CAN_FUSEBLK | self.may_allow_other * layouts.CAN_ALLOW_OTHER

    def flags(self, wanted: int, say: Callable[[str], None]) -> int:
        """Return mount(2) flags *wanted* with what an ordinary user cannot be without."""
        if self.is_root:
            return wanted
        for flag, name in ((layouts.MS_NOSUID, "suid"), (layouts.MS_NODEV, "dev")):
            if not wanted & flag:
                say(f"unsafe option {name} ignored")
        return wanted | layouts.MS_NOSUID | layouts.MS_NODEV

    def check_named(self, mount_point: MountPoint) -> None:
        """Judge a mount point as it is named: a file must be writable by its user. RefusalError(EACCES)."""
        if not self.is_root and mount_point.kind == stat.S_IFREG and not self._may_write(mount_point):
            raise RefusalError.of(str(mount_point.path), errno.EACCES)

    def check_mount(self, mount_point: MountPoint) -> None:
        """Judge the mount itself. RefusalError: EPERM for the place, EUSERS where there are too many already."""
        if self.is_root:
            return
        status = os.fstat(mount_point.fileno())
        if stat.S_ISDIR(status.st_mode):
            if status.st_mode & stat.S_ISVTX and status.st_uid != self.uid:
                raise RefusalError(errno.EPERM, f"mountpoint {mount_point.path} not owned by user")
            if not self._may_write(mount_point):
                raise RefusalError(errno.EPERM, f"user has no write access to mountpoint {mount_point.path}")
        kind = filesystem_type(mount_point.fileno())
        if kind not in MOUNT_OVER:
            raise RefusalError(errno.EPERM, f"mounting over filesystem type {kind:#010x} is forbidden")
        if 0 <= self._mount_max <= fuse_mounts():
            sentence = "too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf"
            raise RefusalError(errno.EUSERS, sentence)

    @staticmethod
    def _may_write(mount_point: MountPoint) -> bool:
        # access(2) asks for the real user; through our own link to the pin, so that no path is walked again.
        return os.access(f"/proc/self/fd/{mount_point.fileno()}", os.W_OK)


def fuse_mounts() -> int:
    """Return how many FUSE filesystems are mounted in this mount namespace, whoever mounted them (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        # The kernel escapes blanks in names, so the one lonely dash stands before the type.
        types = [line.partition(b" - ")[2].partition(b" ")[0] for line in file]
    return sum(fstype.partition(b".")[0] in (b"fuse", b"fuseblk") for fstype in types)
