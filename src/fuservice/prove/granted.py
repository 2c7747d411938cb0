"""Attempts on what was granted: to make more of a descriptor than what it was opened for."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct

from fuservice.linux.rawsyscall import buffer, call
from fuservice.prove.attempt import ALWAYS, AbsentError, Subject, first_that_succeeds, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.prove.ground import Ground

GRANTED: Final = Subject("granted descriptors")
#: The image is its owner's: whoever is another user is no owner.
OWNING: Final = ("seccomp", "user+capabilities")
REOPENING: Final = ("root", "landlock", "seccomp", "user+capabilities")

# linux/fs.h, linux/fuse.h
FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602
FS_NODUMP_FL: Final = 0x40
FUSE_DEV_IOC_CLONE: Final = 0x8004E500
FIGETBSZ: Final = 2  # linux/fs.h
F_OWNER_EX_PID: Final = 1
F_SETOWN_EX: Final = 15  # asm-generic/fcntl.h
AT_EMPTY_PATH: Final = 0x1000
AT_FDCWD: Final = -100


@GRANTED.attempt("reopen the image for writing by /proc/self/fd", "an image that changes", REOPENING)
def reopen_by_proc(ground: Ground) -> None:
    """Open the magic link of the image."""
    os.open(f"/proc/self/fd/{ground.image}", os.O_RDWR)


@GRANTED.attempt("reopen the image for writing by /dev/fd", "an image that changes", REOPENING)
def reopen_by_dev(ground: Ground) -> None:
    """Open another name of the magic link."""
    os.open(f"/dev/fd/{ground.image}", os.O_RDWR)


@GRANTED.attempt("open the image for writing by its path", "an image that changes", REOPENING)
def reopen_by_path(ground: Ground) -> None:
    """Open the image by a path that the conversation told."""
    os.open(ground.image_path, os.O_RDWR)


@GRANTED.attempt("write to the image", "an image that changes", (ALWAYS,))
def write_image(ground: Ground) -> None:
    """Write to the read-only descriptor."""
    os.write(ground.image, b"x")


@GRANTED.attempt("write to the image by a duplicate", "an image that changes", (ALWAYS,))
def write_duplicate(ground: Ground) -> None:
    """Duplicate the descriptor, ask for writing by F_SETFL, and write at a place."""
    copy = os.dup(ground.image)
    fcntl.fcntl(copy, fcntl.F_SETFL, os.O_RDWR)
    os.pwrite(copy, b"x", 0)


@GRANTED.attempt("map the image for writing", "an image that changes", (ALWAYS,))
def map_image(ground: Ground) -> None:
    """Map the image shared and writable."""
    call("mmap", 0, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, ground.image, 0)


@GRANTED.attempt("cut the image short", "loss of the image", (ALWAYS,))
def cut_image(ground: Ground) -> None:
    """Truncate, and punch a hole, through the read-only descriptor."""
    punch = 1 | 2  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    first_that_succeeds(
        [
            lambda: os.ftruncate(ground.image, 0),
            lambda: call("fallocate", ground.image, punch, 0, 4096),
        ]
    )


@GRANTED.attempt("change the image's mode", "an image that anybody may write", OWNING)
def change_mode(ground: Ground) -> None:
    """fchmod(2): for this a descriptor opened for reading is enough."""
    os.fchmod(ground.image, 0o644)


@GRANTED.attempt("change the image's owner", "an image that is somebody else's", OWNING)
def change_owner(ground: Ground) -> None:
    """fchown(2) to what it is already."""
    call("fchown", ground.image, -1, ground.image_gid)


@GRANTED.attempt("change the image's times", "a change that backups do not see", OWNING)
def change_times(ground: Ground) -> None:
    """utimensat(2) on the descriptor itself."""
    call("utimensat", ground.image, None, struct.pack("4q", 1, 0, 1, 0), 0)


@GRANTED.attempt("set an extended attribute on the image", "a place to leave things for others", OWNING)
def set_attribute(ground: Ground) -> None:
    """fsetxattr(2): for this a descriptor opened for reading is enough."""
    try:
        call("fsetxattr", ground.image, b"user.attempt", b"x", 1, 0)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise AbsentError("the image's filesystem has no extended attributes") from None
        raise


@GRANTED.attempt("set the image's flags", "an image that nobody can write or remove any more", OWNING)
def set_flags(ground: Ground) -> None:
    """FS_IOC_SETFLAGS, with "no dump", which does no harm."""
    flags = buffer(bytes(8))
    try:
        call("ioctl", ground.image, FS_IOC_GETFLAGS, flags)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise AbsentError("the image's filesystem has no flags") from None
        raise
    value = int.from_bytes(flags.raw[:4], "little") | FS_NODUMP_FL
    call("ioctl", ground.image, FS_IOC_SETFLAGS, value.to_bytes(8, "little"))


@GRANTED.attempt("lock the image", "a lock that its owner waits for", ("seccomp",))
def lock(ground: Ground) -> None:
    """flock(2), exclusive."""
    fcntl.flock(ground.image, fcntl.LOCK_EX | fcntl.LOCK_NB)


@GRANTED.attempt("take a lease on the image", "the power to make others wait when they open it", OWNING)
def lease(ground: Ground) -> None:
    """F_SETLEASE, for readers."""
    fcntl.fcntl(ground.image, 1024, fcntl.F_RDLCK)


@GRANTED.attempt("let a descriptor signal others", "signals to who may not be signalled",
                 ("pid", "seccomp"))  # fmt: skip
def signal_by_descriptor(ground: Ground) -> None:
    """Make another process the owner of a descriptor: the kernel sends it SIGIO."""
    fcntl.fcntl(ground.image, F_SETOWN_EX, struct.pack("ii", F_OWNER_EX_PID, ground.victim))


@GRANTED.attempt("link the image to a name", "a second name, in a place of its choice",
                 ("mount", "root", "landlock", "seccomp", "capabilities"), privileged=True)  # fmt: skip
def link_image(ground: Ground) -> None:
    """linkat(2) of the descriptor itself."""
    call("linkat", ground.image, b"", AT_FDCWD, f"{ground.drop}/attempt-image".encode(), AT_EMPTY_PATH)


@GRANTED.attempt("ioctl on the fuse device", "what the kernel offers there beyond a session: a second device, backing files",
                 ("seccomp",))  # fmt: skip
def fuse_ioctl(ground: Ground) -> None:
    """Clone the device onto a second descriptor, as multi-threaded servers do; and ask what every file can be asked."""
    if ground.fuse is None:
        raise AbsentError("/dev/fuse cannot be opened")
    fuse = ground.fuse
    first_that_succeeds(
        [
            lambda: call("ioctl", fuse, FUSE_DEV_IOC_CLONE, fuse.to_bytes(4, "little")),
            lambda: call("ioctl", fuse, FIGETBSZ, buffer(bytes(4))),
        ]
    )


@GRANTED.attempt("open a second fuse device", "a mount of its own", ("root", "landlock", "seccomp"))
def second_fuse(ground: Ground) -> None:
    """Open /dev/fuse."""
    if ground.fuse is None:
        raise AbsentError("/dev/fuse cannot be opened")
    os.open("/dev/fuse", os.O_RDWR)


@GRANTED.attempt("use a descriptor that was left open", "files of who started the cage", ("descriptors",))
def left_open(ground: Ground) -> None:
    """Look for a descriptor that nobody granted."""
    granted = {0, 1, 2, 3, ground.image, ground.fuse}
    for number in set(range(256)) - granted:
        try:
            os.fstat(number)
        except OSError:
            continue
        return
    refuse(errno.EBADF, "there is none")
