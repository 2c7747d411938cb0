"""Whether a caller may have what he asks for: judged by his descriptors and his ids, never by a name that he gave.

Root is no exception: whoever is root in a container, or without its capabilities, would gain by one. RefusalError throughout.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from fuservice.errors import PolicyError, RefusalError, shortened
from fuservice.helper.caller import MOUNT_OVER, fuse_mounts
from fuservice.linux import fusedev, mountinfo, servers, statmount, statx
from fuservice.linux.statfs import filesystem_type
from fuservice.proto import layouts
from fuservice.proto.options import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Final

    from fuservice.broker.policy import Rule
    from fuservice.broker.wire import Mount, Pairs
    from fuservice.helper.fuseconf import FuseConf
    from fuservice.linux.fds import Fd

ALWAYS: Final = layouts.MS_NOSUID | layouts.MS_NODEV
_SUBTYPE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
_LONGEST_SUBTYPE: Final = 64
#: What the absence of a flag means to a policy (``policy.WORDS``), and what to type instead.
_LOOSE: Final = {
    "rw": (layouts.MS_RDONLY, "ro"), "exec": (layouts.MS_NOEXEC, "noexec"), "symfollow": (layouts.MS_NOSYMFOLLOW, "nosymfollow"),
}  # fmt: skip


class Peer:
    """Who connected, as the kernel knew it then. *pidfd* is of the process, where this kernel gives it; *pid* is for the log."""

    __slots__ = ("gid", "gids", "pid", "pidfd", "uid")

    def __init__(self, uid: int, gid: int, groups: Collection[int], pid: int, pidfd: Fd | None) -> None:
        self.uid, self.gid, self.gids, self.pid, self.pidfd = uid, gid, frozenset({gid, *groups}), pid, pidfd


def check_device(fd: int) -> None:
    """Refuse what is no fuse device, opened for reading and writing, that was never mounted."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        right = not flags & os.O_PATH and fusedev.is_fuse_device(fd)
    except OSError:  # a file on a FUSE filesystem, which lets us not look, or is dead
        right = False
    if not right:
        raise RefusalError(errno.ENODEV, "the first descriptor is not the open fuse device (character device 10:229)")
    if flags & os.O_ACCMODE != os.O_RDWR:
        raise RefusalError(errno.EBADF, "the fuse device must be opened for reading and writing")
    # The kernel would attach a second copy of the first mount, with the first one's owner and options.
    if fusedev.is_mounted(fd) or servers.connection_of(fd) is not None:
        raise RefusalError(errno.EBUSY, "the fuse device is mounted already, or was: open another")


def check_words(request: Mount, rule: Rule, conf: FuseConf) -> dict[str, str | None]:
    """Return the options for the kernel; refuse flags and words that nobody, or not this caller, may have."""
    if not (len(request.subtype) <= _LONGEST_SUBTYPE and _SUBTYPE.issuperset(request.subtype)):
        sentence = f"subtype `{shortened(request.subtype)}': expected up to {_LONGEST_SUBTYPE} of A-Z a-z 0-9 . _ + -"
        raise RefusalError(errno.EINVAL, sentence)
    if strange := request.flags & ~(layouts.MS_ALLOWED | ALWAYS):
        raise RefusalError(errno.EINVAL, f"mount flags {strange:#x} are not for a broker: it only makes new mounts")
    options = _options(request.pairs)
    if "allow_other" in options and not conf.user_allow_other:
        sentence = "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf"
        raise RefusalError(errno.EPERM, sentence)
    wanted = {word: way for word, (flag, way) in _LOOSE.items() if not request.flags & flag}
    wanted |= {"allow_other": ""} if "allow_other" in options else {}
    for word, way in wanted.items():
        if word not in rule.words:
            hint = f": mount with -o {way}" if way else ""
            raise PolicyError(f"the broker's policy, line {rule.line}, gives you no {word}{hint}")
    return options


def _options(pairs: Pairs) -> dict[str, str | None]:
    options: dict[str, str | None] = {}
    for name, value in pairs:
        if name in options:
            raise RefusalError(errno.EINVAL, f"mount option {name} twice")
        known = name in ("default_permissions", "allow_other") and value is None
        if not known and not (name == "max_read" and _is_number(value)):
            shown = shortened(join(name, value))
            raise RefusalError(errno.EINVAL, f"mount option `{shown}' is not one that the broker passes on")
        options[name] = value
    return options


def _is_number(value: str | None) -> bool:
    """Say whether the kernel reads *value* as the decimal 32-bit number that it looks like; 0 would be 4096 to it."""
    return bool(
        value and value.isascii() and value.isdecimal() and value[0] != "0" and len(value) < 11 and int(value) < 1 << 32
    )


class Place:
    """The mount point: a descriptor, what stat(2) says of it, and the mount that it lies on."""

    __slots__ = ("fd", "kind", "status", "under")

    def __init__(self, fd: int) -> None:
        """Refuse what cannot be looked at, and what nobody may mount on."""
        self.fd = fd
        self.under = _find_mount(fd, "the mount point")
        try:
            self.status = os.fstat(fd)
        except PermissionError:
            sentence = (
                "the mount point lies on a FUSE filesystem that lets nobody but its user look: mount it elsewhere"
            )
            raise RefusalError(errno.EACCES, sentence) from None
        except OSError as error:
            raise RefusalError.of("the mount point", error) from None
        self.kind = stat.S_IFMT(self.status.st_mode)
        if self.kind not in (stat.S_IFDIR, stat.S_IFREG):
            raise RefusalError(errno.ENOTDIR, "the mount point must be a directory or a regular file")

    def check(self, uid: int) -> None:
        """Refuse filesystems over which users may not mount, and places of another's where a proof would be in vain."""
        try:
            kind = filesystem_type(self.fd)
        except OSError as error:
            raise RefusalError.of("the mount point's filesystem", error) from None
        if kind not in MOUNT_OVER:
            raise RefusalError(errno.EPERM, f"mounting over filesystem type {kind:#010x} is forbidden")
        if "ro" in (*self.under.mount_options.split(","), self.under.super_options.split(",")[0]):
            raise RefusalError(errno.EROFS, "the mount point lies on a filesystem that is mounted read-only")
        if self.kind == stat.S_IFDIR and self.status.st_mode & stat.S_ISVTX and self.status.st_uid != uid:
            raise RefusalError(errno.EPERM, "the mount point is a sticky directory that is not yours")
        if self.kind == stat.S_IFREG and not self._is_theirs_to_write(uid):
            sentence = "the mount point is a file that is not yours: send it opened for reading and writing"
            raise RefusalError(errno.EACCES, sentence)

    def _is_theirs_to_write(self, uid: int) -> bool:
        """Its owner may let himself write. To others the kernel gave O_RDWR; a log that somebody gave them is O_WRONLY."""
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        opened = not flags & os.O_PATH and flags & (os.O_ACCMODE | os.O_APPEND) == os.O_RDWR
        return self.status.st_uid == uid or opened

    def needs_proof(self, uid: int) -> bool:
        """Say whether the caller has yet to show that he may write to the directory: it is not his own."""
        return self.kind == stat.S_IFDIR and self.status.st_uid != uid

    def check_proof(self, shown: int, word: str, uid: int) -> None:
        """Refuse *shown* unless it is a directory that user *uid* made in ours, by the name *word*, which nobody could foresee.

        The kernel judged whether he may create there. We need no right in it: only to ask the new directory for its parent.
        """
        try:
            status = os.fstat(shown)
        except OSError as error:
            raise RefusalError.of("the directory that was shown", error) from None
        name = os.path.basename(os.readlink(f"/proc/self/fd/{shown}"))  # noqa: PTH115, PTH119
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or name != word:
            raise RefusalError(errno.EACCES, "what was shown is not the directory that was asked for")
        try:
            parent = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=shown)
        except OSError as error:
            raise RefusalError.of("the directory that was shown cannot be looked at", error) from None
        try:
            same = os.path.samestat(os.fstat(parent), self.status)
            same_mount = {statx.mount_id(parent), statx.mount_id(shown)} == {self.under.mount_id}
        finally:
            os.close(parent)
        if not (same and same_mount):
            raise RefusalError(errno.EACCES, "the directory that was shown does not lie in the mount point")


def _find_mount(fd: int, what: str) -> mountinfo.Mount:
    """Return the mount that *fd* lies on; refuse where it is in another mount namespace than ours, or in none."""
    mount_id = statx.mount_id(fd)
    found = next((mount for mount in mountinfo.mounts() if mount.mount_id == mount_id), None)
    if found is None:
        sentence = f"{what} is not in the broker's mount namespace: a container's or sandbox's mounts are its own"
        raise RefusalError(errno.EXDEV, sentence)
    return found


def check_number(uid: int, rule: Rule, conf: FuseConf) -> None:
    """Refuse one mount too many: of this user (policy), or of all (fuse.conf)."""
    mine = sum(owner(mount) == uid for mount in mountinfo.mounts())
    if mine >= rule.mounts:
        raise PolicyError(f"you have {mine} FUSE mounts, and the broker's policy gives you {rule.mounts}: unmount one")
    if 0 <= conf.mount_max <= fuse_mounts():
        raise RefusalError(errno.EUSERS, "too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf")


def owner(mount: mountinfo.Mount) -> int | None:
    """Return the user for whom the FUSE filesystem *mount* was mounted; None where it is no such, or does not say."""
    if mount.fstype.partition(".")[0] not in ("fuse", "fuseblk"):
        return None
    found = [word[8:] for word in mount.super_options.split(",") if word.startswith("user_id=")]
    return int(found[0]) if len(found) == 1 and found[0].isdecimal() else None


def check_attached(mount: int, uid: int) -> int:
    """Return mountinfo's id of *mount*, which we have just attached; refuse where the kernel made it another's.

    Whoever mounts the same device at the same moment elsewhere would make ours a second copy.
    """
    mount_id = statx.mount_id(mount)
    found = next((there for there in mountinfo.mounts() if there.mount_id == mount_id), None)
    if found is None or owner(found) != uid:
        raise RefusalError(errno.ESTALE, "the fuse device was mounted by somebody else meanwhile")
    return mount_id


def check_unmount(root: int, wanted: int, uid: int) -> None:
    """Refuse to detach the mount whose root is *root* unless it is the one with id *wanted*, FUSE, and of user *uid*.

    Nor where something is mounted in it: that would go with it, or, upon its root, in its place (umount(2) goes to the top).
    """
    mount = _find_mount(root, "the mount")
    try:
        mount_id = statmount.mount_id(wanted)
    except OSError as error:
        mount_id = (
            wanted if error.errno == errno.ENOSYS else 0
        )  # before Linux 6.8 there is one kind of id; 0 is nobody's
    if mount_id != mount.mount_id:
        raise RefusalError(errno.EINVAL, f"the descriptor is not of the mount with id {wanted}")
    if owner(mount) is None:
        raise RefusalError(errno.EPERM, f"that is a mount of {mount.fstype}, not of FUSE")
    if owner(mount) != uid:
        raise RefusalError(errno.EPERM, "that mount is not yours")
    if any(other.parent_id == mount.mount_id for other in mountinfo.mounts()):
        raise RefusalError(errno.EBUSY, "something is mounted in it: unmount that first")
