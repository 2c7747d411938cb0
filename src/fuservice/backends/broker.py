"""The broker, ``fuserviced``, mounts for us: we show it a fuse device and a mount point, and it judges (docs/broker.md)."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress

from fuservice.backends.backend import Backend
from fuservice.broker import wire
from fuservice.errors import RefusalError
from fuservice.helper.attach import Mount
from fuservice.linux import mountinfo, mountusers, statx
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.proto import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from fuservice.helper.attach import Plan
    from fuservice.helper.mountpoint import MountPoint

CONNECT: Final = 5.0  # seconds
ANSWER: Final = 60.0  # seconds: requests of the same user are served one after the other
_NOT_HERE: Final = {layouts.MS_NOSUID: "suid", layouts.MS_NODEV: "dev"}


class Broker(Backend):
    """``fuserviced`` at *path*."""

    name = "broker"

    def __init__(self, path: str = wire.SOCKET) -> None:
        super().__init__()
        self._path = path

    def why_not(self) -> str | None:
        try:
            FdSeqPacket.connect(self._path, CONNECT).close()
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return f"no broker listens at {self._path} (the administrator can start one: fuserviced(8))"
        except OSError as error:
            return f"the broker at {self._path}: {error.strerror}"
        return None

    def attach(self, plan: Plan, mount_point: MountPoint) -> Mount:
        if plan.fstype != "fuse":
            raise RefusalError(
                errno.EPERM, f"the broker mounts no {plan.fstype}, for which the kernel would open a path"
            )
        mount_point.check_unmoved()
        self.lost = [word for flag, word in _NOT_HERE.items() if not plan.flags & flag]
        flags = plan.flags | layouts.MS_NOSUID | layouts.MS_NODEV
        request = wire.Mount(plan.source, plan.subtype, flags, list(plan.options.items()))
        with _shown(mount_point) as place:
            fds = [plan.fuse_device.fileno(), place.fileno()]
            answer = self._ask(request.encode(), fds, mount_point.fileno())
        try:
            mount = Attached(mount_point.look().take(), self)
        except OSError as error:
            raise RefusalError.of(f"{mount_point.path}: was mounted, and cannot be found any more", error) from None
        if statx.mount_id(mount.fileno()) != answer.mount_id:
            mount.close()
            raise RefusalError(errno.ESTALE, f"{mount_point.path}: was mounted, and is covered or gone already")
        return mount

    def detach(self, mount_point: str, *, lazy: bool) -> None:
        try:
            root = Fd(os.open(mount_point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
        except OSError as error:
            raise RefusalError.of(mount_point, error) from None
        with root:
            here = statx.mount_id(root.fileno())
            if not any((m.mount_id, m.mount_point) == (here, mount_point) for m in mountinfo.mounts()):
                raise RefusalError(errno.EINVAL, f"{mount_point}: nothing is mounted there")
            if not lazy and (users := mountusers.users(here)):
                # The broker itself can only detach. Whom else but its user's processes would the mount let in?
                raise RefusalError(errno.EBUSY, f"{mount_point}: busy: {', '.join(users[:5])} {_uses(users)} it")
            self.unmount(root.fileno())

    def unmount(self, root: int) -> None:
        """Have the mount whose root is *root* detached; RefusalError where the broker does not."""
        try:
            mount_id = statx.unique_id(root)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise RefusalError.of("unmounting", error) from None
            mount_id = statx.mount_id(root)
        self._ask(wire.Unmount(mount_id).encode(), [root], None)

    def _ask(self, packet: bytes, fds: Sequence[int], place: int | None) -> wire.Answer:
        """Send a request; prove what must be proven of *place*; return the broker's answer. RefusalError where it refuses."""
        try:
            with FdSeqPacket.connect(self._path, CONNECT) as connection:
                connection.deadline = time.monotonic() + ANSWER
                with suppress(BrokenPipeError):  # it has hung up: perhaps not without a word
                    connection.send_with_fds(packet, fds)
                answer = _receive(connection)
                if isinstance(answer, wire.Challenge) and place is not None:
                    answer = _prove(connection, place, answer.word)
        except (BrokenPipeError, ConnectionResetError):
            raise RefusalError(
                errno.EPIPE, "the broker hung up: it has too many connections of yours, or its log says why"
            ) from None
        except OSError as error:
            raise RefusalError.of("the broker", error) from None
        if isinstance(answer, wire.Challenge) or answer.error:
            number, sentence = (
                (errno.EACCES, "asks twice") if isinstance(answer, wire.Challenge) else (answer.error, answer.sentence)
            )
            raise RefusalError(number, f"the broker: {sentence or os.strerror(number)}")
        return answer


class Attached(Mount):
    """A mount that the broker made for us: only the broker can undo it."""

    __slots__ = ("_broker",)

    def __init__(self, fd: int, broker: Broker) -> None:
        super().__init__(fd)
        self._broker = broker

    def detach(self) -> None:
        self._broker.unmount(self.fileno())


def _uses(users: Sequence[str]) -> str:
    return "uses" if len(users) == 1 else "use"


def _shown(mount_point: MountPoint) -> Fd:
    """Return what to show of the mount point: a file opened for writing, if we may, as the broker wants it of one not ours."""
    if mount_point.kind == stat.S_IFREG:
        with suppress(OSError):
            return Fd(os.open(f"/proc/self/fd/{mount_point.fileno()}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    return Fd(os.dup(mount_point.fileno()))


def _receive(connection: FdSeqPacket) -> wire.Answer | wire.Challenge:
    try:
        packet = connection.receive(wire.LARGEST)
    except (
        ConnectionResetError
    ):  # it has hung up with words of ours unread; the kernel tells that first, and its own words then
        packet = connection.receive(wire.LARGEST)
    if not packet:
        raise ConnectionResetError
    return wire.answer(packet)


def _prove(connection: FdSeqPacket, place: int, word: str) -> wire.Answer | wire.Challenge:
    """Make the directory *word* in *place*, for as long as the broker looks at it; return what it says then.

    Where we may not, that is shown: the broker then has the sentence.
    """
    if "/" in word or word in (".", ".."):
        raise RefusalError(errno.EPROTO, "the broker asks for a name that is none")
    # By the umask, not by chmod(2) afterwards: whoever else may write there could put something else of ours in its place.
    masked = os.umask(0)
    try:
        os.mkdir(word, 0o711, dir_fd=place)
    except OSError:
        connection.send(wire.PROOF)
        return _receive(connection)
    finally:
        os.umask(masked)
    try:
        with Fd(os.open(word, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)) as shown:
            connection.send_with_fds(wire.PROOF, [shown.fileno()])
            return _receive(connection)
    finally:
        with suppress(OSError):  # gone by another's hand, which changes nothing of what the broker said
            os.rmdir(word, dir_fd=place)
