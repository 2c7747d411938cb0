"""Directories to mount on, where the caller has named none: where they lie, what they are called, how they go.

They lie in a directory that is the caller's alone, so nobody else can put a link or another directory in the place of one.
"""

from __future__ import annotations

import os
import stat

from fuservice.cli import runtime
from fuservice.errors import PolicyError, SystemCallError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SYSTEM: Final = "/run/fuservice/media"  # root's; beside it are the helper's records and the listeners'
MOST_OF_A_NAME: Final = 500  # x, x-2 … x-500
LONGEST_NAME: Final = 200  # bytes, with room for a number
#: What a file's name loses on the way to a directory's.
_SUFFIXES: Final = (
    ".img", ".image", ".raw", ".bin", ".dd", ".iso", ".udf", ".ext2", ".ext3", ".ext4", ".squashfs", ".sqfs", ".erofs", ".xfs",
    ".btrfs", ".vfat", ".fat", ".exfat", ".ntfs", ".f2fs", ".fs", ".snap", ".disk",
)  # fmt: skip


def places() -> list[str]:
    """Return where such directories may lie, the best first: the session's runtime directory, else one in /tmp."""
    if os.geteuid() == 0:
        return [SYSTEM]
    session = runtime.runtime_directory() or f"/run/user/{os.geteuid()}"
    return [f"{session}/fuservice", f"/tmp/fuservice-{os.geteuid()}"]


def make(name: str) -> str:
    """Make a directory called *name*, or *name*-2 and so on if there is one, and return its path.

    PolicyError, with the way out, where none of the places is the caller's alone.
    """
    base = _base()
    for number in range(1, MOST_OF_A_NAME + 1):
        path = f"{base}/{name}" if number == 1 else f"{base}/{name}-{number}"
        try:
            os.mkdir(path, 0o755 if os.geteuid() == 0 else 0o700)  # noqa: PTH102
        except FileExistsError:
            continue
        except OSError as error:
            raise SystemCallError(f"{path}: {error.strerror}: name a mount point") from None
        return path
    raise PolicyError(f"{base}: has {MOST_OF_A_NAME} directories called {name}: name a mount point")


def remove(path: str) -> None:
    """Remove the directory at *path* if it is one that :func:`make` makes, and nothing is on it; else it stays."""
    if os.path.dirname(path) in places():  # noqa: PTH120
        try:
            os.rmdir(path)  # noqa: PTH106 - it fails where something is mounted, or was put there
        except OSError:
            return


def name_for(source: str) -> str:
    """Return what the directory for *source* is called: its file's name without the suffix of an image, fit for a terminal."""
    name = os.path.basename(source.rstrip("/"))  # noqa: PTH119
    stem, dot, suffix = name.rpartition(".")
    if stem and dot + suffix.lower() in _SUFFIXES:
        name = stem
    name = "".join(c if c.isprintable() and c != "\\" else "_" for c in name)
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[:-1]
    return name if name not in ("", ".", "..") else "image"


def check_name(name: str) -> str:
    """Return *name*, which the caller typed; UsageError where it is no name for a directory."""
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(os.fsencode(name)) > LONGEST_NAME:
        raise UsageError(f"mount: --name={name}: expected a name for a directory, without `/', of at most {LONGEST_NAME} bytes")  # fmt: skip
    return name


def _base() -> str:
    reasons = []
    for base in places():
        try:
            _prepare(base)
        except OSError as error:
            reasons.append(f"{base}: {error.strerror}")
        else:
            return base
    raise PolicyError(
        f"there is no directory of your own to mount in ({'; '.join(reasons)}): name a mount point, or log in so that "
        "XDG_RUNTIME_DIR is set"
    )


def _prepare(base: str) -> None:
    """Make *base* if it is missing; OSError where it cannot be, or others may write to it or to what it lies in."""
    parent = os.path.dirname(base)  # noqa: PTH120
    if base == SYSTEM:
        _mkdir(parent, 0o755)
    mine = os.lstat(parent)
    sticky = mine.st_mode & stat.S_ISVTX  # /tmp: others can make the directory before us, and no more
    if mine.st_uid not in (0, os.geteuid()) or (mine.st_mode & 0o022 and not sticky):
        raise PermissionError(0, "lies in a directory that others may write to")
    _mkdir(base, 0o755 if base == SYSTEM else 0o700)
    status = os.lstat(base)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(0, f"is not yours alone (owner {status.st_uid}, mode {status.st_mode & 0o7777:o})")


def _mkdir(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)  # noqa: PTH102
    except FileExistsError:
        return
