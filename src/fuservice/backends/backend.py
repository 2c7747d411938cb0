"""What every back end is: a name, a reason why it cannot be used here (or none), and how it mounts and unmounts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.helper.attach import Mount, Plan
    from fuservice.helper.mountpoint import MountPoint

NAMES: Final = ("root", "fusermount3", "broker", "namespace")


class Backend:
    """One way to a mount. Making one asks nobody anything and opens nothing."""

    name: str

    def __init__(self) -> None:
        #: Options that were asked for and that the mount which was attached last has not: to be told, and recorded.
        self.lost: list[str] = []

    def why_not(self) -> str | None:
        """Return the reason why this way is closed to this process, without its name and a full stop; None if it is open.

        Says what can be known before a mount point is: what a place or an option forbids is told by :meth:`attach`.
        """
        raise NotImplementedError

    def attach(self, plan: Plan, mount_point: MountPoint) -> Mount:
        """Mount as *plan* says on *mount_point*; ``helper.mount.mount`` takes this. RefusalError, and nothing mounted."""
        raise NotImplementedError

    def detach(self, mount_point: str, *, lazy: bool) -> None:
        """Unmount what was attached at the absolute path *mount_point*; *lazy*: even if it is busy.

        RefusalError with the reason where it stays. Asks no filesystem, so a server that hangs cannot hang this.
        """
        raise NotImplementedError
