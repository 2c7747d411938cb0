"""Mounting by the system's own set-user-ID program, fusermount3 (or libfuse 2's fusermount), for users without rights.

It opens a fuse device of its own, mounts it, and gives it to us; our server has got another one by then, before anything was
mounted. So ours joins the connection of theirs (``fuseclone``), and theirs is closed at once: whoever kept it would keep the
connection alive when the server dies, and everybody would wait for its answers.

That the program may do more than we is why it is asked for by a fixed path and not by the caller's PATH: what it is must be
root's word. Everything that it is told is a word that was checked; where it is told to mount is the pinned directory itself.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import time
from contextlib import suppress

from fuservice.backends.backend import Backend
from fuservice.backends.program import Program
from fuservice.errors import LONGEST_WORD, RefusalError, printable
from fuservice.helper.attach import Mount
from fuservice.linux import capabilities, fuseclone, fusedev, mountinfo, prctl, statx
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket, TruncatedPacketError
from fuservice.linux.servers import connection_number
from fuservice.proto.options import SETS, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from fuservice.helper.attach import Plan
    from fuservice.helper.mountpoint import MountPoint

PROGRAMS: Final = ("fusermount3", "fusermount")
#: Where distributions put them; /run/wrappers is NixOS's.
DIRECTORIES: Final = ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin")
PATIENCE: Final = 20.0  # seconds: it reads /etc/fuse.conf and the mount table, and does nothing that takes long

#: What every version since libfuse 2.9 knows; and what is asked for if it knows it, and is else told to be missing.
_ALWAYS: Final = ("ro", "noexec", "noatime", "sync", "dirsync")  # nosuid and nodev are set without being asked for
_PERHAPS: Final = ("nosymfollow", "nodiratime", "strictatime")
_UNKNOWN: Final = "unknown option '"
#: What a mount must have if it was asked for, whatever the program did: flag → its word in mountinfo.
_MUST_HOLD: Final[Mapping[int, str]] = {SETS[name]: name for name in ("ro", "nosuid", "nodev", "noexec")}


def find() -> tuple[str, str | None]:
    """Return the program's path and why it cannot be used; ("", reason) where there is none."""
    reason = f"neither {' nor '.join(PROGRAMS)} is in {', '.join(DIRECTORIES)}"
    found = ""
    for name in PROGRAMS:
        for directory in DIRECTORIES:
            path = f"{directory}/{name}"
            if (told := _judge(path)) is None:
                return path, None
            if told and not found:
                found, reason = path, told
    return found, reason


def _judge(path: str) -> str | None:
    """Return why *path* cannot be used, "" where there is nothing, None where it can."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    if not (stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_ISUID):
        return f"{path} is not set-user-ID root"
    if status.st_uid != 0:
        return f"{path} belongs to uid {status.st_uid} and not to root here: in this user namespace it gains no rights"
    if not os.access(path, os.X_OK):
        return f"{path} may not be executed by this user"
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return f"{path} lies on a filesystem that is mounted nosuid"
    return None


class Fusermount(Backend):
    """The system's own program."""

    name = "fusermount3"

    def why_not(self) -> str | None:
        _, reason = find()
        if reason is not None:
            return reason
        if prctl.prctl(prctl.PR_GET_NO_NEW_PRIVS):
            return (
                "this process has no_new_privs (set by a sandbox, a container, or NoNewPrivileges= of a unit): "
                "set-user-ID programs gain nothing there"
            )
        if not capabilities.may_gain(capabilities.CAP_SYS_ADMIN):
            return "CAP_SYS_ADMIN is not in this process's bounding set, so no program gains it"
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            return f"uid {os.getuid()} has no name in the user database, and fusermount3 mounts for users that have one"
        return None

    def attach(self, plan: Plan, mount_point: MountPoint) -> Mount:
        path, reason = find()
        if reason is not None:
            raise RefusalError(errno.EPERM, f"fusermount3: {reason}")
        if plan.fstype != "fuse":
            raise RefusalError(errno.EPERM, "fusermount3: a mount of type fuseblk is for root alone")
        mount_point.check_unmoved()
        self.lost = []
        words, perhaps = _words(plan), [name for name in _PERHAPS if plan.flags & SETS[name]]
        if path.endswith(
            "fusermount"
        ):  # libfuse 2 hands on what it does not know, and the kernel does not say what it was
            self.lost, perhaps = perhaps, []
        while True:
            try:
                return _mount(path, [*words, *perhaps], plan, mount_point)
            except _UnknownOptionError as error:
                if error.option not in perhaps:
                    raise
                # Parsed before anything is done: nothing is mounted yet.
                perhaps.remove(error.option)
                self.lost.append(error.option)

    def detach(self, mount_point: str, *, lazy: bool) -> None:
        path, reason = find()
        if reason is not None:
            raise RefusalError(errno.EPERM, f"{mount_point}: cannot be unmounted: {reason}")
        unmount(path, mount_point, lazy=lazy)


class _UnknownOptionError(RefusalError):
    """The program does not know *option*."""

    def __init__(self, option: str) -> None:
        super().__init__(errno.EINVAL, f"fusermount3 does not know the option {printable(option)}")
        self.option = option


class Mounted(Mount):
    """A mount that only the program can undo."""

    __slots__ = ("_path", "_program")

    def __init__(self, fd: int, program: str, path: str) -> None:
        super().__init__(fd)
        self._program, self._path = program, path

    def detach(self) -> None:
        unmount(self._program, self._path, lazy=True)


def _words(plan: Plan) -> list[str]:
    """Return the options in the program's syntax: commas and backslashes that are meant literally get a backslash."""
    pairs: dict[str, str | None] = {"fsname": plan.source}
    if plan.subtype:
        pairs["subtype"] = plan.subtype
    words = [join(name, value and value.replace("\\", "\\\\").replace(",", "\\,")) for name, value in pairs.items()]
    words += [name for name in _ALWAYS if plan.flags & SETS[name]]
    return words + [join(name, value) for name, value in plan.options.items()]


def _mount(path: str, words: list[str], plan: Plan, mount_point: MountPoint) -> Mount:
    """Have it mounted, make sure that it is where and what was meant, and let our device serve it."""
    with _have_mounted(path, words, mount_point) as device:  # and closed before anything else happens: see above
        found = _find(device, mount_point)
        mount = _check(path, found, plan, mount_point)
        try:
            fuseclone.clone(plan.fuse_device.fileno(), device.fileno())
        except OSError as error:
            with mount:
                mount.detach()
            raise RefusalError.of("joining the connection of fusermount3's mount", error) from None
    return mount


def _have_mounted(path: str, words: list[str], mount_point: MountPoint) -> Fd:
    """Run the program; return the fuse device that it has mounted. RefusalError, and nothing mounted, where it has not."""
    deadline = time.monotonic() + PATIENCE
    try:
        ours, theirs = FdSeqPacket.pair()
    except OSError as error:
        raise RefusalError.of(f"starting {path}", error) from None
    ours.deadline = deadline
    with ours:
        with theirs, _place(mount_point) as place:
            command = [os.path.basename(path), "-o", ",".join(words), "--", place.name]  # noqa: PTH119
            program = _start(path, command, place, deadline, theirs.fileno())
        with program:
            try:
                return _receive(ours, program)
            except _UnknownOptionError:
                raise  # parsed before anything is done
            except TimeoutError:
                refusal = RefusalError(errno.ETIMEDOUT, f"{path} did nothing for {PATIENCE:.0f} s: gave up")
            except RefusalError as error:
                refusal = error
        _undo(path, mount_point)  # it may have mounted, and failed to tell us
    raise refusal


class _Place(Fd):
    """A directory to start the program in, and the name in it that it is told."""

    __slots__ = ("name",)

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd)
        self.name = name


def _place(mount_point: MountPoint) -> _Place:
    """Return how the pinned mount point is named without a path: a directory is ".", from inside of it."""
    if stat.S_ISDIR(mount_point.kind):
        return _Place(os.dup(mount_point.fileno()), ".")
    return _beside(str(mount_point.path))


def _start(path: str, words: Sequence[str], place: _Place, deadline: float, channel: int | None = None) -> Program:
    try:
        return Program(path, words, directory=place.fileno(), deadline=deadline, channel=channel)
    except OSError as error:
        raise RefusalError.of(f"starting {path}", error) from None


def _beside(path: str) -> _Place:
    """Return how *path* is named from its directory, where the mount that covers it does not get in the way."""
    directory, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
    try:
        return _Place(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name)
    except OSError as error:
        raise RefusalError.of(directory, error) from None


def _receive(channel: FdSeqPacket, program: Program) -> Fd:
    """Return the fuse device that *program* has mounted. RefusalError with its own words where it has not."""
    try:
        _, fds = channel.receive_with_fds(1)
    except TruncatedPacketError as error:
        raise RefusalError(errno.EPROTO, f"fusermount3 sent {error}") from None
    if len(fds) == 1 and fusedev.is_fuse_device(fds[0].fileno()) and program.wait() == 0:
        return fds[0]
    for fd in fds:
        fd.close()
    if fds:
        raise RefusalError(
            errno.EPROTO, f"fusermount3 sent {len(fds)} descriptors: expected a fuse device, and that alone"
        )
    raise _refusal("mount", program)


def _refusal(what: str, program: Program) -> RefusalError:
    """Return what *program* said when it would not, as a sentence of ours."""
    status, said = program.wait(), program.words()
    if _UNKNOWN in said:
        return _UnknownOptionError(said.partition(_UNKNOWN)[2].partition("'")[0])
    lines = [line.partition(": ")[2] or line for line in said.splitlines() if line]
    told = printable("; ".join(lines), LONGEST_WORD) or f"ended with {status}"
    numbers = (errno.EPERM, errno.EACCES, errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.ENODEV, errno.ENOTCONN)
    number = next((n for n in numbers if said.endswith(os.strerror(n))), errno.EPERM)
    return RefusalError(number, f"{what}: {program.name}: {told}")


def _find(device: Fd, mount_point: MountPoint) -> mountinfo.Mount | None:
    """Return the mount that *device* serves; of an older kernel, which does not tell, the one that the mount point shows."""
    number = fuseclone.connection(device.fileno())
    there = os.readlink(f"/proc/self/fd/{mount_point.fileno()}")  # noqa: PTH115
    for mount in reversed(mountinfo.mounts()):
        if mount.fstype.partition(".")[0] == "fuse" and (
            connection_number(mount.device) == number if number is not None else mount.mount_point == there
        ):
            return mount
    return None


def _check(program: str, found: mountinfo.Mount | None, plan: Plan, mount_point: MountPoint) -> Mounted:
    """Return a descriptor of the mount *found*, if it covers what was pinned and has what was asked for; else undo it."""
    if found is None:
        raise RefusalError(errno.ESTALE, f"{mount_point.path}: the mount was undone at once by somebody else")
    try:
        mount = Mounted(mount_point.look().take(), program, found.mount_point)
    except OSError as error:
        with suppress(RefusalError):
            unmount(program, found.mount_point, lazy=True)
        raise RefusalError.of(str(mount_point.path), error) from None
    if refusal := _judge_mount(mount, found, plan, mount_point):
        with mount, suppress(RefusalError):
            mount.detach()
        raise refusal
    return mount


def _judge_mount(mount: Mount, found: mountinfo.Mount, plan: Plan, mount_point: MountPoint) -> RefusalError | None:
    """Return what is wrong with the mount *found*, if anything; *mount* is what the mount point shows."""
    options = found.mount_options.split(",")
    if missing := [word for flag, word in _MUST_HOLD.items() if plan.flags & flag and word not in options]:
        return RefusalError(errno.EPERM, f"fusermount3 mounted it without {', '.join(missing)}: unmounted")
    # By place and parent: what a path leads to may be exchanged at any time, but not what a mount lies on (rename(2), EBUSY).
    there = os.readlink(f"/proc/self/fd/{mount_point.fileno()}")  # noqa: PTH115
    placed = (found.parent_id, found.mount_point) == (statx.mount_id(mount_point.fileno()), there)
    if not placed or statx.mount_id(mount.fileno()) != found.mount_id:
        sentence = f"{mount_point.path}: was exchanged meanwhile: fusermount3 mounted on {found.mount_point}: unmounted"
        return RefusalError(errno.ESTALE, sentence)
    return None


def _undo(program: str, mount_point: MountPoint) -> None:
    """Unmount what *program* may have mounted, though it did not say so: nobody serves it."""
    with suppress(OSError, RefusalError), mount_point.look() as now:
        number = statx.mount_id(now.fileno())
        there = next((mount for mount in mountinfo.mounts() if mount.mount_id == number), None)
        if number != statx.mount_id(mount_point.fileno()) and there and there.fstype.partition(".")[0] == "fuse":
            unmount(program, there.mount_point, lazy=True)


def unmount(program: str, path: str, *, lazy: bool) -> None:
    """Have *program* unmount the FUSE filesystem at the absolute *path*, which it does for its owner. RefusalError if it does not."""
    with _beside(path) as place:
        # Not -q: it would keep the reason from us as well.
        words = [os.path.basename(program), "-u", *(["-z"] if lazy else []), "--", place.name]  # noqa: PTH119
        deadline = time.monotonic() + PATIENCE
        with _start(program, words, place, deadline) as running:
            try:
                if running.wait() == 0:
                    return
            except TimeoutError:
                raise RefusalError(
                    errno.ETIMEDOUT, f"{path}: {program} did not unmount it in {PATIENCE:.0f} s"
                ) from None
            raise _refusal(f"{path}: cannot be unmounted", running)
