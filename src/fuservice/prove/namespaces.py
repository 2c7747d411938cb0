"""Attempts on namespaces and mounts: to make new ones, to enter others', and to see what the machine shares."""

from __future__ import annotations

import errno
import os

from fuservice.linux.rawsyscall import call
from fuservice.prove.attempt import Subject, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.prove.ground import Ground

NAMESPACES: Final = Subject("namespaces and mounts")
#: For this one needs CAP_SYS_ADMIN, .
ADMIN: Final = ("capabilities", "seccomp")

# linux/sched.h, linux/mount.h, linux/fcntl.h
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
SIGCHLD: Final = 17
MS_RDONLY: Final = 1
OPEN_TREE_CLONE: Final = 1
AT_FDCWD: Final = -100
SHM_RDONLY: Final = 0o10000


@NAMESPACES.attempt(
    "unshare a user namespace", "every capability, and with them most of the kernel's code", ("seccomp",)
)
def unshare_user(_ground: Ground) -> None:
    """unshare(2)."""
    call("unshare", CLONE_NEWUSER)


@NAMESPACES.attempt("unshare a mount namespace", "mounts of its own", ADMIN, privileged=True)
def unshare_mount(_ground: Ground) -> None:
    """unshare(2)."""
    call("unshare", CLONE_NEWNS)


@NAMESPACES.attempt("unshare a network namespace", "the kernel's network code, with rights", ADMIN, privileged=True)
def unshare_net(_ground: Ground) -> None:
    """unshare(2)."""
    call("unshare", CLONE_NEWNET)


@NAMESPACES.attempt(
    "clone into a user namespace",
    "a child with every capability",
    ("seccomp", "user+capabilities+limits"),
    plain=["limits"],
)
def clone_user(_ground: Ground) -> None:
    """clone(2): the child ends at once."""
    if (child := call("clone", CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)) == 0:
        call("exit_group", 0)
    os.waitpid(child, 0)


@NAMESPACES.attempt(
    "enter another process's namespaces", "the machine as others see it", (*ADMIN, "pid"), privileged=True
)
def enter(ground: Ground) -> None:
    """setns(2) by pidfd."""
    call("setns", call("pidfd_open", ground.victim, 0), CLONE_NEWUTS)


@NAMESPACES.attempt("mount a filesystem", "a tree in which others trust what they find",
                    (*ADMIN, "mount", "root", "landlock"), privileged=True)  # fmt: skip
def mount(ground: Ground) -> None:
    """Mount a tmpfs on a directory of ours, in the namespace that others see."""
    call("mount", b"none", ground.mount_point.encode(), b"tmpfs", MS_RDONLY, None)
    _must_be_shared("mnt", ground)


@NAMESPACES.attempt("unmount a filesystem", "what a mount hides", (*ADMIN, "root"), privileged=True)
def unmount(ground: Ground) -> None:
    """umount2(2) where nothing is mounted: EINVAL comes after the check of rights."""
    try:
        call("umount2", ground.mount_point.encode(), 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


@NAMESPACES.attempt("make a filesystem context", "every filesystem of the kernel, for parsing what it likes", ADMIN,
                    privileged=True)  # fmt: skip
def make_context(_ground: Ground) -> None:
    """fsopen(2)."""
    call("fsopen", b"tmpfs", 0)


@NAMESPACES.attempt("copy a tree of mounts", "a second way to it", ADMIN, privileged=True)
def copy_tree(_ground: Ground) -> None:
    """open_tree(2)."""
    call("open_tree", AT_FDCWD, b"/", OPEN_TREE_CLONE)


@NAMESPACES.attempt("exchange the root", "the tree that was put away", (*ADMIN, "landlock"), privileged=True)
def exchange_root(_ground: Ground) -> None:
    """pivot_root(2) to where it cannot go: EBUSY and EINVAL come after the check of rights."""
    try:
        call("pivot_root", b"/", b"/")
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EINVAL):
            raise


@NAMESPACES.attempt("set the host name", "a machine with another name", (*ADMIN, "uts"), privileged=True)
def set_host_name(ground: Ground) -> None:
    """Set the name that the machine has, in the namespace that others see."""
    name = ground.host.encode()
    call("sethostname", name, len(name))
    _must_be_shared("uts", ground)


@NAMESPACES.attempt("learn the host name", "which machine this is", ("uts", "seccomp"))
def learn_host_name(ground: Ground) -> None:
    """uname(2)."""
    if os.uname().nodename != ground.host:
        refuse(errno.ENOENT, "it is another name")


@NAMESPACES.attempt("attach to shared memory", "what others keep in memory", ("ipc", "seccomp"))
def attach_memory(ground: Ground) -> None:
    """Attach to a segment of ours that the world may read: shmat(2)."""
    call("shmat", ground.shared_memory, 0, SHM_RDONLY)


@NAMESPACES.attempt("learn of its cgroup", "how the machine is run, and what else runs", ("root", "seccomp", "cgroup"))
def learn_cgroup(ground: Ground) -> None:
    """See whether its view of the cgroups is the machine's."""
    _must_be_shared("cgroup", ground)


def _must_be_shared(name: str, ground: Ground) -> None:
    """Refuse where the namespace *name* is our own: nobody else sees what was done there, and nobody else's is seen."""
    if os.readlink(f"/proc/self/ns/{name}") != ground.namespaces[name]:  # noqa: PTH115
        refuse(errno.EPERM, "nobody else sees it")
