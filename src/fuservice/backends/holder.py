"""The holder of a private mount: the process that makes the namespaces, mounts in them, and stays until the mount is over.

What ends it: the end of the server's supervisor (so the server is gone, unmounted or dead), SIGTERM, and, unless it was told to
stay, the end of who started it. Then it detaches what is still mounted, removes the directory if that was made for it, and ends;
with the last process in it the namespace goes as well.

Which holders there are is the kernel's to say: their name, their user, and the covered directory, which each keeps a descriptor of.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
from contextlib import suppress

from fuservice.backends import namespace
from fuservice.errors import EXIT_BUG, EXIT_FAILURE, EXIT_OK, FuserviceError, PolicyError, RefusalError, SystemCallError
from fuservice.linux import capabilities, mountapi, namespaces, prctl
from fuservice.linux.fds import Closed, Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

    from fuservice.linux import mountinfo

    Say = Callable[[str], None]

NAME: Final = "fuservice-hold"  # what ps(1) calls it: at most 15 bytes
PATIENCE: Final = 8.0  # seconds for a holder to end: its server has 5 for that
# Descriptors of a holder: 0 to 2 are /dev/null.
_COVERED, _STARTER, _SUPERVISOR = 3, 4, 5
# What it tells its starter: a sentence, a failure with its exit code, that it has mounted. And what it is told: to stay.
_SAY, _FAILED, _MOUNTED, _STAY = b"s", b"f", b"m", b"k"
_ROOM: Final = 131_072
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)  # each ends a holder
_MOST_COVERS: Final = 100


class HolderError(FuserviceError):
    """What a holder could not do, in its words and with its exit code."""

    def __init__(self, exit_code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Started(Closed):
    """A holder that is our child, and holds. Closing this ends it, unless it was told to stay."""

    def __init__(self, pid: int, control: FdSeqPacket) -> None:
        self.pid, self._control = pid, control
        self.told = ""  # what the function that mounted has returned
        self._over = False

    def stay(self) -> None:
        """Let it live without us."""
        try:
            self._control.send(_STAY)
        except ConnectionError:
            raise SystemCallError("the process that was to hold the mount has ended") from None
        self._control.close()
        self._over = True

    def is_over(self) -> bool:
        """Say whether the mount is gone already: most likely since its server is dead."""
        try:
            return Held(self.pid).mount() is None
        except OSError:
            return True

    def close(self) -> None:
        """End it, and with it the mount; a second call does nothing."""
        if not self._over:
            self._over = True
            self._control.close()
            with Fd(os.pidfd_open(self.pid)) as pidfd:
                if not ends(pidfd, PATIENCE):
                    os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def start(mount: Callable[[Say], str], path: str, *, say: Say, supervisor: int, remove: bool) -> Started:
    """Have *mount* called in new namespaces, by a holder that stays; return once it has mounted at *path*, an absolute one.

    *mount* gets a function that says a sentence to the caller, as *say* does here, and returns what there is to tell.
    *supervisor* is a pidfd: with the end of that process the mount is over. *remove*: the directory at *path* was made for
    this mount. FuserviceError, and nothing left, where it fails.
    """
    ours, theirs = FdSeqPacket.pair()
    with theirs, _covered(path) as covered:
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            raise SystemCallError(f"no process can be started to hold the mount: {error.strerror}") from None
        if pid == 0:
            ours.close()
            _hold(mount, path, (covered.fileno(), theirs.fileno(), supervisor), theirs, remove=remove)
    started = Started(pid, ours)
    try:
        started.told = _listen(ours, say)
    except BaseException:
        started.close()
        raise
    return started


def _covered(path: str) -> Fd:
    try:
        return Fd(os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        raise SystemCallError(f"{path}: {error.strerror}") from None


def _listen(control: FdSeqPacket, say: Say) -> str:
    """Take what a holder tells until it has mounted; return what there is to tell then."""
    while packet := control.receive(_ROOM):
        kind, text = packet[:1], packet[1:].decode("utf-8", "surrogateescape")
        if kind == _MOUNTED:
            return text
        if kind == _FAILED:
            code, _, sentence = text.partition(" ")
            raise HolderError(int(code), sentence)
        say(text)
    raise SystemCallError("the process that was to hold the mount has ended")


def _hold(
    mount: Callable[[Say], str], path: str, fds: tuple[int, int, int], control: FdSeqPacket, *, remove: bool
) -> NoReturn:
    """Be the holder, and end."""
    code = EXIT_FAILURE
    try:
        os.setsid()  # Ctrl-C is for whoever uses the mount
        for number in _ENDING:
            signal.signal(number, _told_to_end)
        _enter()
        told = mount(lambda sentence: _tell(control, _SAY, sentence))
        try:
            _settle(fds)
            control = FdSeqPacket(Fd(_STARTER))
            control.send(_MOUNTED + told.encode("utf-8", "surrogateescape"))
            _wait(control)
        finally:
            for number in _ENDING:
                signal.signal(number, signal.SIG_IGN)
            _let_go(path, remove=remove)
    except (_TimeToEndError, ConnectionError):
        code = EXIT_OK
    except FuserviceError as error:
        _tell(control, _FAILED, f"{error.exit_code} {error}")
    except BaseException as error:  # noqa: BLE001  # nobody is above us: tell it, and leave by _exit whatever it was
        import traceback

        os.write(2, os.fsencode(traceback.format_exc()))
        _tell(control, _FAILED, f"{EXIT_BUG} the process that was to hold the mount has failed: {error!r}")
    finally:
        os._exit(code)


class _TimeToEndError(BaseException):
    """A signal came that ends us."""


def _told_to_end(_number: int, _frame: object) -> None:
    raise _TimeToEndError


def _enter() -> None:
    try:
        namespace.enter_new()
    except OSError as error:
        raise PolicyError(f"no namespace can be made to mount in: {error.strerror}") from None


def _tell(control: FdSeqPacket, kind: bytes, text: str) -> None:
    with suppress(OSError):
        control.send(kind + text.encode("utf-8", "surrogateescape")[: _ROOM - 1])


def _settle(fds: tuple[int, int, int]) -> None:
    """Keep nothing of the starter's but *fds*, and no more rights than it takes to unmount."""
    null = os.open(os.devnull, os.O_RDWR)
    # First out of the way of the low numbers, any of which may be one of these.
    for place, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 2 * _SUPERVISOR) for fd in (null, null, null, *fds)]):
        os.dup2(fd, place)
    os.closerange(_SUPERVISOR + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    prctl.set_name(NAME)
    if os.geteuid() != 0:
        only = 1 << capabilities.CAP_SYS_ADMIN
        capabilities.set_capabilities(only, only, 0)
    # The helper's 0 would keep setns(2) from other processes of this user. They could make themselves what we are.
    prctl.set_dumpable(1)


def _wait(control: FdSeqPacket) -> None:
    """Return when the mount is over."""
    poll = select.poll()
    for fd in (_STARTER, _SUPERVISOR):
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if _SUPERVISOR in ready:
            return
        if control.receive(_ROOM) != _STAY:
            return
        poll.unregister(_STARTER)


def _let_go(path: str, *, remove: bool) -> None:
    """Detach what is mounted at *path* in here, and remove the directory that was made for it."""
    for _ in range(_MOST_COVERS):
        if namespace.mounted(path) is None:
            break
        with suppress(OSError):
            mountapi.umount2(path, mountapi.MNT_DETACH | mountapi.UMOUNT_NOFOLLOW)
    if remove:
        with suppress(OSError):
            os.rmdir(path)  # noqa: PTH106


def ends(pidfd: Fd, seconds: float) -> bool:
    """Return whether that process ends within *seconds*."""
    poll = select.poll()
    poll.register(pidfd.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Held:
    """A private mount of this user's, as its holder shows it: where it is seen, and by which process it is held."""

    def __init__(self, pid: int) -> None:
        """Look at the process *pid*: OSError where it is no holder of this user's."""
        self.pid = pid
        with open(f"/proc/{pid}/comm", "rb") as file:  # noqa: PTH123
            name = file.read().rstrip(b"\n")
        if name != NAME.encode() or os.stat(f"/proc/{pid}").st_uid != os.geteuid():  # noqa: PTH116
            raise OSError(errno.ESRCH, "no holder of a private mount of this user's")
        self.mount_point = os.readlink(f"/proc/{pid}/fd/{_COVERED}")  # noqa: PTH115

    def mount(self) -> mountinfo.Mount | None:
        """Return the mount, as the holder's mountinfo shows it; None where it is gone."""
        return namespace.mounted(self.mount_point, self.pid)

    def join(self) -> None:
        """Move this process, which has one thread, in there; its working directory is what has the same path there.

        What it executes next has no more rights than it has out here. RefusalError where the holder has ended.
        """
        try:
            here = os.getcwd()  # noqa: PTH109
        except OSError:
            here = "/"
        with self._pinned() as pidfd:
            flags = namespaces.CLONE_NEWNS
            if os.stat(f"/proc/{self.pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116
                flags |= namespaces.CLONE_NEWUSER
            try:
                namespaces.setns(pidfd.fileno(), flags)
            except OSError as error:
                raise RefusalError.of(f"{self.mount_point}: joining the namespace of its mount", error) from None
        if flags & namespaces.CLONE_NEWUSER:
            namespace.give_up_rights()
        with suppress(OSError):
            os.chdir(here)

    def _pinned(self) -> Fd:
        """Return a pidfd of the holder: of this very one, and no other process that has its number by now."""
        try:
            pidfd = Fd(os.pidfd_open(self.pid))
        except ProcessLookupError:
            raise namespace.not_there(self.mount_point) from None
        try:
            if Held(self.pid).mount_point == self.mount_point:
                return pidfd
        except OSError:
            pass
        pidfd.close()
        raise namespace.not_there(self.mount_point)

    def unmount(self, *, lazy: bool) -> None:
        """Unmount it; with the mount its server and its holder end. RefusalError where it stays, because it is busy."""
        with self._pinned() as pidfd:
            pid = os.fork()
            if pid == 0:
                self._unmount(mountapi.UMOUNT_NOFOLLOW | (mountapi.MNT_DETACH if lazy else 0))
            number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if number == errno.EBUSY:
                way_out = "a process that has entered it uses it: end it, or use -l"
                raise RefusalError(number, f"{self.mount_point}: busy: {way_out}")
            if number not in (0, errno.EINVAL):  # EINVAL: it is gone already, and its holder is about to end
                raise RefusalError.of(f"{self.mount_point}: cannot be unmounted", abs(number))
            if lazy or number:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd.fileno(), signal.SIGTERM)
            if not ends(pidfd, PATIENCE):
                sentence = f"{self.mount_point}: its holder, process {self.pid}, does not end with it: kill {self.pid}"
                raise RefusalError(errno.ETIMEDOUT, sentence)

    def _unmount(self, flags: int) -> NoReturn:
        number = errno.EPERM
        try:
            self.join()
            mountapi.umount2(self.mount_point, flags)
            number = 0
        except (OSError, RefusalError) as error:
            number = error.errno or errno.EIO
        finally:
            os._exit(number)


def holders() -> list[Held]:
    """Return all private mounts of this user, in this pid namespace."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                found.append(Held(int(name)))
    return found


def at(mount_point: str) -> Held | None:
    """Return the private mount at the absolute path *mount_point*, the newest of several."""
    return max((held for held in holders() if held.mount_point == mount_point), key=lambda held: held.pid, default=None)


def find(mount_point: str) -> Held:
    """Return the private mount at the absolute path *mount_point*; RefusalError where there is none."""
    held = at(mount_point)
    if held is None:
        raise namespace.not_there(mount_point)
    return held
