"""Where sockets lie, what types may be called, and how many descriptors there are."""

from __future__ import annotations

import errno
import os
import resource
import stat

from fuservice.errors import PolicyError, SystemCallError, UsageError
from fuservice.launch.slots import MOST_SERVERS
from fuservice.linux.fds import Fd
from fuservice.linux.listener import Listener
from fuservice.linux.sockets import SeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, MutableMapping
    from typing import Final

_PER_SERVER: Final = 4  # descriptors of the listener: log, hand-over, seccomp, fuse device
_OWN_DESCRIPTORS: Final = 100  # sockets, warm processes, and servers while they are made
_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
LONGEST_NAME: Final = 64
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


def make_room() -> int:
    """Raise our limit of descriptors as far as is needed and allowed; return for how many servers it suffices.

    Without it accept(2) would fail long before MOST_SERVERS, and poll report the same connection again and again.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _PER_SERVER * MOST_SERVERS + _OWN_DESCRIPTORS
    soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MOST_SERVERS, max(1, (soft - _OWN_DESCRIPTORS) // _PER_SERVER))


def check_name(name: str) -> None:
    """UsageError unless *name* can be the name of a type, hence of a socket (SECURITY.md)."""
    if not (1 <= len(name) <= LONGEST_NAME and _NAME_CHARACTERS.issuperset(name)) or name in (".", ".."):
        raise UsageError(
            f"`{name}' is no type name: expected 1 to {LONGEST_NAME} of the characters A-Z a-z 0-9 . _ + -"
        )


def inherited_sockets(environment: MutableMapping[str, str], types: Collection[str]) -> dict[str, Listener]:
    """Return type → listening socket, of those that this process was started with (sd_listen_fds(3), Accept=no).

    A socket's type is its name (FileDescriptorName=) if that is one of *types*, else the last part of its path. Our variables
    are taken out of *environment*. PolicyError where one is no such socket.
    """
    count, pid, names = (environment.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"))
    found: dict[str, Listener] = {}
    words = names.split(":")
    for place in range(int(count) if count.isdecimal() and pid == str(os.getpid()) else 0):
        fd = Fd(_FIRST_FD + place)
        try:
            listener = Listener.inherited(fd)
        except OSError as error:
            fd.take()  # not what we were promised, so not ours to close
            why = f"{error.strerror} (for Accept=yes there is `fuservice serve')"
            raise PolicyError(f"the socket that was passed as number {place + 1}: {why}") from None
        word = words[place] if place < len(words) else ""
        found[word if word in types else os.path.basename(listener.path)] = listener  # noqa: PTH119
    return found


def prepare_directory(path: str) -> None:
    """Make *path* if it is missing; PolicyError where others could put a socket of theirs into it.

    For a user other than root it is made for that user alone.
    """
    try:
        os.makedirs(path, mode=0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)  # noqa: PTH103
        status = os.lstat(path)
    except OSError as error:
        raise SystemCallError(f"{path}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise PolicyError(f"{path}: is not a directory")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise PolicyError(
            f"{path}: has owner {status.st_uid} and mode {status.st_mode & 0o7777:o}; a socket directory must be root's or "
            "yours, and writable by its owner alone (chmod go-w)"
        )


def clear_stale(path: str) -> None:
    """Remove the socket of a dead listener; PolicyError where somebody listens, or where it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise PolicyError(f"{path}: is in the way, and is not a socket")
        SeqPacket.connect(path, 1.0).close()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ECONNREFUSED:
            raise SystemCallError(f"{path}: {error.strerror}") from None
        os.unlink(path)  # noqa: PTH108
        return
    raise PolicyError(f"{path}: somebody listens there already")
