"""What a caged process sees of the machine: namespaces of its own, and an empty root."""

from __future__ import annotations

import errno
import os

from fuservice.cage.operations import Operation
from fuservice.linux import mountapi, namespaces, opentree, pivot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Final

#: Wall → the flag of its namespace, for those that a process can make for itself.
OWN_SPACES: Final = {
    "mount": namespaces.CLONE_NEWNS,
    "net": namespaces.CLONE_NEWNET,
    "ipc": namespaces.CLONE_NEWIPC,
    "uts": namespaces.CLONE_NEWUTS,
    "cgroup": namespaces.CLONE_NEWCGROUP,
}
HOST_NAME: Final = "fuservice"

_ATTRIBUTES: Final = (
    mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV | mountapi.MOUNT_ATTR_NOEXEC
    | mountapi.MOUNT_ATTR_NOSYMFOLLOW
)  # fmt: skip


class PidNamespace(Operation):
    """No other process to be seen, signalled or traced. clone(2) makes it; here it is seen that it was made."""

    __slots__ = ()
    wall = "pid"
    clone_flags = namespaces.CLONE_NEWPID

    def describe(self) -> str:
        return "a list of processes of its own, where it is number 1"

    def execute(self) -> None:
        if os.getpid() != 1:
            raise OSError(errno.ESRCH, f"this process is number {os.getpid()}: it was not started in a pid namespace")


class Namespaces(Operation):
    """Namespaces *walls* in one call, which copies less than one call for each."""

    __slots__ = ("walls",)

    def __init__(self, walls: Sequence[str]) -> None:
        self.walls = tuple(walls)

    def describe(self) -> str:
        return f"namespaces of its own: {', '.join(self.walls)}"

    def execute(self) -> None:
        namespaces.unshare(sum(OWN_SPACES[wall] for wall in self.walls))


class HostName(Operation):
    """The machine's name is nobody's business."""

    __slots__ = ()
    wall = "uts"

    def describe(self) -> str:
        return f"the host name is {HOST_NAME}"

    def execute(self) -> None:
        namespaces.set_host_name(HOST_NAME)


class EmptyRoot(Operation):
    """A file tree without anything in it, and no way back to the machine's. Only in a mount namespace of our own."""

    __slots__ = ("binds",)
    wall = "root"

    def __init__(self, binds: Collection[str]) -> None:
        """*binds* are directories that show, read-only, under their last names."""
        self.binds = tuple(binds)

    def describe(self) -> str:
        seen = f"shows only {', '.join(self.binds)}" if self.binds else "is empty"
        return f"a root that {seen}: read-only, no devices, nothing executable, no /proc"

    def execute(self) -> None:
        pivot.make_all_private()  # or detaching the machine's tree would detach it for the machine too
        with mountapi.fsopen("tmpfs") as context:
            for key, value in (("size", "4k"), ("nr_inodes", str(1 + len(self.binds))), ("mode", "555")):
                mountapi.fsconfig_set(context.fileno(), key, value)
            mountapi.fsconfig_create(context.fileno())
            with mountapi.fsmount(context.fileno(), _ATTRIBUTES) as root:
                self._enter(root.fileno())

    def _enter(self, root: int) -> None:
        """Cover the machine's root with *root*, go there, put it in the place of what it covers."""
        place = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            mountapi.move_mount(root, place)
        finally:
            os.close(place)
        for source in self.binds:
            _show(source, root)
        pivot.make_read_only(root)  # last: the places of the binds had to be made
        os.fchdir(root)
        pivot.pivot_to_here()


def _show(source: str, root: int) -> None:
    """Mount *source*, read-only and without what is mounted below it, in the directory *root*."""
    name = os.path.basename(source)  # noqa: PTH119
    os.mkdir(name, 0o555, dir_fd=root)
    place = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=root)
    try:
        with opentree.open_tree(opentree.AT_FDCWD, source, clone=True) as tree:
            pivot.make_read_only(tree.fileno())
            mountapi.move_mount(tree.fileno(), place)
    finally:
        os.close(place)
