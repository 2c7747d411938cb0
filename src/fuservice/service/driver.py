"""What a driver's author writes: a subclass of ``Driver``, which is a ``Filesystem`` that knows what it is started with."""

from __future__ import annotations

from fuservice.fuse.budget import Budgets
from fuservice.fuse.filesystem import Filesystem
from fuservice.proto import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import ClassVar

    from fuservice.linux.fds import Fd


class ImageArgument:
    """The source: the first positional word, which the helper opens for us."""

    __slots__ = ("block_device_only", "is_source", "writable")

    def __init__(self, *, writable: bool = False, block_device_only: bool = False, is_source: bool = False) -> None:
        """*is_source*: mountinfo shows its path as the mount's source, and not, as with libfuse, the subtype."""
        self.writable, self.block_device_only, self.is_source = writable, block_device_only, is_source


class Driver(Filesystem):
    """A filesystem and its terms of service. Read-only unless ``read_only`` says otherwise."""

    name: ClassVar[str]
    image: ClassVar[ImageArgument | None] = None  # None: there is no source, only a mount point
    options: ClassVar[Mapping[str, str]] = {}  # the driver's own -o options: name → what it does
    mount_point_kind: ClassVar[int] = layouts.S_IFDIR
    read_only: ClassVar[bool] = True
    #: Whether it may be imported before the fork. A library that does not survive one says no, and starts slower.
    warm: ClassVar[bool] = True
    #: Whether another server of the same image may go on where one has died: the numbers of its nodes, and the cookies of its
    #: listings, follow from the image, its handles mean nothing, and nothing ever changes.
    restartable: ClassVar[bool] = False
    #: What its cage has beside that of every server: system calls (cage/profile.py), and directories that it sees, read-only.
    syscalls: ClassVar[Sequence[str]] = ()
    binds: ClassVar[Sequence[str]] = ()
    threads: ClassVar[int] = 0  # beside the main one: what it needs to wait by Filesystem.wait_with
    limits: ClassVar[Mapping[str, int]] = {}  # where the defaults of fuse/budget.py do not fit: budget → limit

    def __init__(self, log: Callable[[str], None]) -> None:
        """*log* takes a sentence for the log of the mount."""
        self.log = log
        self.budgets = Budgets(self.limits)  #: of this mount; whoever inflates calls ``budgets.inflated()``

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        """Open the filesystem in *image*, which stays open and the caller's; return what will be served.

        Called before the mount. ImageError where it cannot be served: nothing is mounted then.
        """
        return self
