"""Attempts on files: to read, to write, to execute, or to learn of anything that was not granted."""

from __future__ import annotations

import errno
import os
import stat
import struct

from fuservice.linux.rawsyscall import buffer, call
from fuservice.prove.attempt import AbsentError, Subject, first_that_succeeds, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fuservice.prove.ground import Ground

FILES: Final = Subject("files")
#: What opens a file goes through all three, so that none is the last one.
OPENING: Final = ("root", "landlock", "seccomp")
AT_FDCWD: Final = -100
_OPEN_HOW: Final = struct.Struct("QQQ")  # struct open_how, linux/openat2.h


def _read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    if not os.read(fd, 1):
        refuse(errno.ENODATA, "there is nothing in it")


@FILES.attempt("read /etc/passwd", "who the machine's users are", OPENING)
def read_passwd(_ground: Ground) -> None:
    """Read a file that every process of every user may read."""
    _read("/etc/passwd")


@FILES.attempt("read a file by its path", "whatever the world may read", OPENING)
def read_canary(ground: Ground) -> None:
    """Read a canary, world-readable, whose path is known."""
    _read(ground.canary)


@FILES.attempt("read a file by openat2", "the same, through the newer call", OPENING)
def read_by_openat2(ground: Ground) -> None:
    """Read the canary through a door that a careless filter forgets."""
    call("openat2", AT_FDCWD, ground.canary.encode(), _OPEN_HOW.pack(0, 0, 0), _OPEN_HOW.size)


@FILES.attempt("walk out by ..", "the tree outside, through a working directory that was left there", OPENING)
def walk_out(ground: Ground) -> None:
    """Read the canary relative to the working directory."""
    _read("../" * 40 + ground.canary.lstrip("/"))


@FILES.attempt("open a file by its handle", "any file of a filesystem that a granted descriptor lies on",
               ("landlock", "seccomp", "capabilities"), privileged=True)  # fmt: skip
def open_by_handle(ground: Ground) -> None:
    """Open the canary by its file handle: this walks no path, so no root stops it."""
    if not ground.handle:
        raise AbsentError("the filesystem of the temporary directory has no file handles")
    fd = call("open_by_handle_at", ground.image, buffer(bytes.fromhex(ground.handle)), os.O_RDONLY)
    os.read(fd, 1)


@FILES.attempt("list /", "the names on this machine", OPENING)
def list_root(_ground: Ground) -> None:
    """List the root directory; an empty one is no gain."""
    if not os.listdir("/"):
        refuse(errno.ENOENT, "it is empty")


@FILES.attempt("read /proc/1/cmdline", "what runs on the machine", OPENING)
def read_process(_ground: Ground) -> None:
    """Read what the world may read of a process."""
    _read("/proc/1/cmdline")


@FILES.attempt("list /proc/1/root", "the tree of another process", (*OPENING, "capabilities"), privileged=True)
def list_process_root(_ground: Ground) -> None:
    """Go through a magic link of another process."""
    if not os.listdir("/proc/1/root"):
        refuse(errno.ENOENT, "it is empty")


@FILES.attempt("open /proc/self/mem", "writing to its own read-only memory, code among it",
               (*OPENING, "user+capabilities+dumpable"), plain=["dumpable"])  # fmt: skip
def open_memory(_ground: Ground) -> None:
    """Open the memory of this process for writing."""
    os.open("/proc/self/mem", os.O_RDWR)


@FILES.attempt("learn whether a file exists", "which software and which users are here", ("root", "seccomp"))
def stat_canary(ground: Ground) -> None:
    """Ask for the attributes of the canary."""
    os.access(ground.canary, os.R_OK) or refuse(errno.ENOENT, "not there, or not for us")


@FILES.attempt("read a symbolic link", "where things are", ("root", "seccomp"))
def read_link(ground: Ground) -> None:
    """Read the target of a symbolic link of ours."""
    os.readlink(ground.link)  # noqa: PTH115


@FILES.attempt("watch a file", "when others use what", ("root", "seccomp"))
def watch(ground: Ground) -> None:
    """Be told of every access to the canary's directory: inotify(7)."""
    fd = call("inotify_init1", 0)
    call("inotify_add_watch", fd, os.path.dirname(ground.canary).encode(), 0xFFF)  # noqa: PTH120


@FILES.attempt("write a file without a name", "storage that nobody sees", OPENING)
def write_unnamed(ground: Ground) -> None:
    """Make an unnamed file anywhere where the world may write."""
    places = (ground.drop, "/tmp", "/var/tmp", "/dev/shm", "/run", "/", ".")
    first_that_succeeds([lambda p=place: os.open(p, os.O_TMPFILE | os.O_WRONLY, 0o600) for place in places])  # type: ignore[misc]


@FILES.attempt("create a file", "a place to leave things for others", OPENING)
def create_file(ground: Ground) -> None:
    """Create a file where the world may write, or in the root or the working directory."""
    places = (ground.drop, "/", ".")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    first_that_succeeds([lambda p=place: os.open(f"{p}/attempt-file", flags) for place in places])  # type: ignore[misc]


@FILES.attempt("create a directory", "the same", OPENING)
def create_directory(ground: Ground) -> None:
    """Create a directory where the world may write, or in the root or the working directory."""
    places = (ground.drop, "/", ".")
    first_that_succeeds([lambda p=place: os.mkdir(f"{p}/attempt-directory") for place in places])  # type: ignore[misc] # noqa: PTH102


@FILES.attempt("create a symbolic link", "a trap for who follows it", OPENING)
def create_link(ground: Ground) -> None:
    """Create a symbolic link where the world may write."""
    os.symlink("/", f"{ground.drop}/attempt-link")  # noqa: PTH211


@FILES.attempt("create a FIFO", "a channel to others", OPENING)
def create_fifo(ground: Ground) -> None:
    """Create a FIFO where the world may write."""
    os.mknod(f"{ground.drop}/attempt-fifo", stat.S_IFIFO | 0o666)


@FILES.attempt("create a device node", "the machine's disks and memory", (*OPENING, "capabilities"),
               privileged=True)  # fmt: skip
def create_device(ground: Ground) -> None:
    """Create a node of the null device where the world may write."""
    os.mknod(f"{ground.drop}/attempt-device", stat.S_IFCHR | 0o666, os.makedev(1, 3))


@FILES.attempt("remove a file", "loss of somebody's work", OPENING)
def remove(ground: Ground) -> None:
    """Remove a file from where the world may write."""
    os.unlink(f"{ground.drop}/victim")  # noqa: PTH108


@FILES.attempt("rename a file", "exchanging one file for another", OPENING)
def rename(ground: Ground) -> None:
    """Rename a file where the world may write."""
    os.rename(f"{ground.drop}/victim", f"{ground.drop}/attempt-renamed")  # noqa: PTH104


@FILES.attempt("truncate a file", "loss of somebody's work", OPENING)
def truncate(ground: Ground) -> None:
    """Cut a file that the world may write, without opening it."""
    os.truncate(f"{ground.drop}/victim", 0)


@FILES.attempt("change a file's mode", "files of its user made everybody's", ("root", "seccomp", "user+capabilities"))
def change_mode(ground: Ground) -> None:
    """Change the mode of a file of who started the cage."""
    os.chmod(ground.canary, 0o644)  # noqa: PTH101


@FILES.attempt("execute a program", "any tool that is installed", OPENING)
def execute(ground: Ground) -> None:
    """Execute a program, which says so itself over the socket."""
    os.execv(ground.program, ["program"])


@FILES.attempt("gain rights from a set-user-ID program", "root", (*OPENING, "user+privileges"), privileged=True)
def execute_setuid(ground: Ground) -> None:
    """Execute a program that is set-user-ID root, and that says over the socket whether this made it root."""
    if not ground.setuid_program:
        raise AbsentError("only root can make such a program")
    os.execv(ground.setuid_program, ["program"])


@FILES.attempt("change the root directory", "a tree of its own making, in which programs trust what they find",
               ("seccomp", "capabilities"), privileged=True)  # fmt: skip
def change_root(_ground: Ground) -> None:
    """chroot(2) to where the root is already."""
    os.chroot("/")


@FILES.attempt("open the terminal", "typing into the shell of who started the listener", (*OPENING, "session"))
def open_terminal(ground: Ground) -> None:
    """Open the controlling terminal, if there is one."""
    if not ground.terminal:
        raise AbsentError("whoever proves has no terminal")
    os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
