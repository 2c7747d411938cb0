"""Making the ground on which attempts are made, and taking it away again: all of it lies outside of the cage."""

from __future__ import annotations

import errno
import os
import signal
import struct
import tempfile
from contextlib import ExitStack, contextmanager, suppress

from fuservice.errors import SystemCallError
from fuservice.linux import prctl
from fuservice.linux.fds import Fd
from fuservice.linux.listener import Listener
from fuservice.linux.rawsyscall import buffer, call
from fuservice.prove import network
from fuservice.prove.ground import Ground
from fuservice.prove.program import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

MNT_DETACH: Final = 2
_HANDLE_ROOM: Final = 128  # MAX_HANDLE_SZ, linux/exportfs.h
_IPC_PRIVATE: Final = 0
_IPC_RMID: Final = 0
_NAMESPACES: Final = ("mnt", "cgroup", "uts")


@contextmanager
def ground() -> Iterator[Ground]:
    """Give the ground; ``server`` is 0: the caller starts it. What attempts left behind is removed at the end.

    OSError where something of it cannot be made. The processes and listeners are this process's.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(_directory())
        fuse = _fuse(stack)
        abstract = f"@fuservice-prove-{os.getpid()}"
        socket = f"{directory}/socket"
        stack.enter_context(_listening(Listener(socket, 0o666)))
        stack.enter_context(Fd(_listen(network.AF_UNIX, network.SOCK_SEQPACKET, network.unix_address(abstract))))
        tcp = stack.enter_context(Fd(_listen(network.AF_INET, network.SOCK_STREAM, network.inet_address(0))))
        told = {
            **_paths(directory),
            "socket": socket,
            "abstract": abstract,
            "tcp_port": _port(tcp.fileno()),
            "sockets": [path for path in (*network.BUSES, *network.SYSTEMD) if os.path.exists(path)],  # noqa: PTH110
            "image_gid": os.stat(f"{directory}/image").st_gid,  # noqa: PTH116
            "handle": _handle(f"{directory}/canary"),
            "victim": stack.enter_context(_victim()),
            "server": 0,
            "groups": os.getgroups(),
            "host": os.uname().nodename,
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES},  # noqa: PTH115
            "shared_memory": _shared_memory(),
            "queue": f"fuservice-prove-{os.getpid()}",
            "terminal": _has_terminal(),
        }
        here = Ground(told, -1, fuse)
        yield here
        restore(here)


def restore(here: Ground) -> None:
    """Make the ground again what it was: attempts may leave things there, or take them away.

    SystemCallError where the victim has ended: no attempt that is written here may do that, and none could aim at it any more.
    """
    if os.waitid(os.P_PID, here.victim, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        raise SystemCallError("the process that attempts aim at has ended")
    with suppress(OSError):
        call("mq_unlink", here.queue.encode())
    for name in os.listdir(here.drop):
        path = f"{here.drop}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            os.rmdir(path)  # noqa: PTH106
        else:
            os.unlink(path)  # noqa: PTH108
    _write(f"{here.drop}/victim", b"somebody's work", 0o666)


def _paths(directory: str) -> dict[str, object]:
    setuid = f"{directory}/setuid-program"
    return {
        "canary": f"{directory}/canary",
        "link": f"{directory}/link",
        "drop": f"{directory}/drop",
        "mount_point": f"{directory}/mount-point",
        "program": f"{directory}/program",
        "setuid_program": setuid if os.path.exists(setuid) else "",  # noqa: PTH110
        "image_path": f"{directory}/image",
    }


@contextmanager
def _directory() -> Iterator[str]:
    """Give a directory that every user can reach, with the files of the ground."""
    directory = tempfile.mkdtemp(prefix="fuservice-prove-")
    try:
        os.chmod(directory, 0o755)  # noqa: PTH101
        for name in ("drop", "mount-point"):
            os.mkdir(f"{directory}/{name}")  # noqa: PTH102
        os.chmod(f"{directory}/drop", 0o777)  # noqa: PTH101
        _write(f"{directory}/canary", b"a canary", 0o644)
        _write(f"{directory}/image", b"an image".ljust(8192, b"\0"), 0o644)
        _write(f"{directory}/program", program(), 0o755)
        if os.geteuid() == 0:  # all that this one does is to say whether it runs as root
            _write(f"{directory}/setuid-program", program(only_root=True), 0o4755)
        os.symlink("canary", f"{directory}/link")  # noqa: PTH211
        yield directory
    finally:
        _remove(directory)


def _write(path: str, content: bytes, mode: int) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)
    os.chmod(path, mode)  # noqa: PTH101


def _remove(directory: str) -> None:
    """Remove what we made, name by name, and what attempts left; never a tree: something might be mounted in it."""
    with suppress(OSError):  # an attempt that succeeded has mounted there; nobody else did
        call("umount2", f"{directory}/mount-point".encode(), MNT_DETACH)
    for place in (f"{directory}/drop", directory):
        for name in os.listdir(place):
            path = f"{place}/{name}"
            remove = os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink  # noqa: PTH112, PTH114
            remove(path)
    os.rmdir(directory)  # noqa: PTH106


def _fuse(stack: ExitStack) -> int | None:
    try:
        return stack.enter_context(Fd(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))).fileno()
    except OSError:
        return None


@contextmanager
def _listening(listener: Listener) -> Iterator[None]:
    try:
        yield
    finally:
        listener.close()


def _listen(family: int, kind: int, address: bytes) -> int:
    """Return a listening socket."""
    fd = call("socket", family, kind | os.O_CLOEXEC, 0)
    call("bind", fd, address, len(address))
    call("listen", fd, 64)
    return fd


def _port(fd: int) -> int:
    address, size = buffer(bytes(16)), buffer((16).to_bytes(4, "little"))
    call("getsockname", fd, address, size)
    return int.from_bytes(address.raw[2:4], "big")


def _handle(path: str) -> str:
    """Return the struct file_handle of *path* (open_by_handle_at(2)), "" where its filesystem has none."""
    handle = buffer(struct.pack("Ii", _HANDLE_ROOM, 0) + bytes(_HANDLE_ROOM))
    try:
        call("name_to_handle_at", -100, path.encode(), handle, buffer(bytes(4)), 0)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ""
        raise
    size = int.from_bytes(handle.raw[:4], "little")
    return handle.raw[: 8 + size].hex()


def _shared_memory() -> int:
    """Return the number of a segment that ends with this process: it is attached, and marked for removal."""
    number = call("shmget", _IPC_PRIVATE, 4096, 0o1666)  # IPC_CREAT
    call("shmat", number, 0, 0)
    call("shmctl", number, _IPC_RMID, None)
    return number


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def _victim() -> Iterator[int]:
    """Give a process of ours that does nothing, and can be traced; it dies with us."""
    with child(_wait_for_ever) as pid:
        yield pid


def _wait_for_ever() -> None:
    while True:
        signal.pause()


@contextmanager
def child(function: Callable[[], None]) -> Iterator[int]:
    """Give the pid of a forked child that runs *function*, which must not return; it is killed in the end."""
    us = os.getpid()
    if (pid := os.fork()) == 0:
        prctl.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() == us:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            function()
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
