"""The caller's own mounts: which receipt belongs to which mount, and which mount is meant by a word."""

from __future__ import annotations

import os

from fuservice.errors import SystemCallError, UsageError, printable
from fuservice.launch import receipts
from fuservice.linux import mountinfo, statx

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

MOST_LINKS: Final = 40  # path_resolution(7)
FUSE: Final = ("fuse", "fuseblk")


def is_fuse(mount: mountinfo.Mount) -> bool:
    """Say whether it is a mount of FUSE's."""
    return mount.fstype.partition(".")[0] in FUSE


def open_receipts() -> dict[int, receipts.Facts]:
    """Return the caller's receipts of mounts whose end nobody has recorded, by number."""
    return {number: facts for number, facts in receipts.read_all().items() if receipts.is_open(facts)}


def receipt_of(mount: mountinfo.Mount, known: Mapping[int, receipts.Facts]) -> int | None:
    """Return the number of the receipt in *known* that is about *mount*; the youngest, where a forgotten one fits too."""
    return max((number for number, facts in known.items() if is_about(facts, mount)), default=None)


def is_about(facts: receipts.Facts, mount: mountinfo.Mount) -> bool:
    """Say whether *facts* are about *mount*: the place and the filesystem's device are the same."""
    return (facts.get("mount point"), facts.get("device")) == (mount.mount_point, mount.device)


def is_private(facts: receipts.Facts) -> bool:
    """Say whether the mount is in a namespace of its own, where it is not seen from here."""
    return facts.get("back end") == "namespace"


def is_there(facts: receipts.Facts) -> bool:
    """Say whether the mount that *facts* are about is there, here or in its own namespace."""
    if is_private(facts):
        return facts.get("mount point") in private_mounts()
    return any(is_about(facts, mount) for mount in mountinfo.mounts())


def private_mounts() -> list[str]:
    """Return the mount points of the caller's private mounts that are there."""
    from fuservice.backends import holder  # nothing for the path to a mount

    return [held.mount_point for held in holder.holders()]


def about(word: str, known: Mapping[int, receipts.Facts]) -> receipts.Facts | None:
    """Return the youngest of the receipts *known* that *word* is about: its number, a mount point, or a source; None for none."""
    if word.isascii() and word.isdecimal() and len(word) < 16 and int(word) in known:
        return known[int(word)]
    paths = {os.path.abspath(word), place(word)}  # noqa: PTH100
    fitting = (facts for facts in known.values() if facts.get("mount point") in paths or facts.get("path") in paths)
    return max(fitting, key=_number, default=None)


def _number(facts: receipts.Facts) -> int:
    number = facts.get("id")
    return number if isinstance(number, int) else 0


def top(path: str) -> mountinfo.Mount | None:
    """Return the topmost mount at *path*."""
    return next((mount for mount in reversed(mountinfo.mounts()) if mount.mount_point == path), None)


def place(typed: str) -> str:
    """Return *typed* as mountinfo has it. Symbolic links are followed, but no mount is ever asked for its root.

    realpath(3) would ask, and hang where the server does.
    """
    path = os.path.abspath(typed)  # noqa: PTH100
    for _ in range(MOST_LINKS):
        parent, name = os.path.split(path)
        path = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
        if top(path) is not None or not os.path.islink(path):  # noqa: PTH114
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))  # noqa: PTH115, PTH118, PTH120
    return path


def identity(path: str) -> int | None:
    """Return the unique id of the mount at *path*; None where the kernel has none."""
    try:
        return statx.unique_id(statx.AT_FDCWD, path)
    except OSError:
        return None


def owner(mount: mountinfo.Mount) -> int | None:
    """Return the uid of whoever has mounted it, as the kernel knows it (fuse(4), user_id); None where it does not say."""
    words = (word.partition("=") for word in mount.super_options.split(","))
    return next((int(value) for name, _, value in words if name == "user_id" and value.isdecimal()), None)


def mounts_of(source: str, known: Mapping[int, receipts.Facts]) -> list[str]:
    """Return the mount points on which the caller has mounted the file at the path *source*, the first one first.

    mountinfo shows the path, unless it holds what could forge a line there; the receipts *known* have all.
    """
    shown = {os.path.abspath(source), os.path.realpath(source)}  # noqa: PTH100
    about_it = [facts for facts in known.values() if facts.get("path") in shown]
    return [
        mount.mount_point for mount in mountinfo.mounts()
        if is_fuse(mount) and owner(mount) == os.getuid()
        and (mount.source in shown or any(is_about(facts, mount) for facts in about_it))
    ]  # fmt: skip


def find_private(word: str, known: Mapping[int, receipts.Facts]) -> str | None:
    """Return the mount point of the caller's private mount that is meant by *word*; None where none is, or one here is."""
    private = {number: facts for number, facts in known.items() if is_private(facts)}
    if word.isascii() and word.isdecimal() and int(word[:15]) in known:
        return str(known[int(word)].get("mount point")) if int(word) in private else None
    path, source = place(word), os.path.abspath(word)  # noqa: PTH100
    if top(path) is not None:
        return None
    there = private_mounts()
    if path in there:
        return path
    return next(
        (
            point
            for facts in private.values()
            if facts.get("path") == source and (point := str(facts.get("mount point"))) in there
        ),
        None,
    )


def find(word: str, known: Mapping[int, receipts.Facts]) -> str:
    """Return the mount point that is meant by *word*: a receipt's number, a mount point, or a source.

    UsageError where a source is mounted more than once; SystemCallError where nothing is mounted there.
    """
    if word.isascii() and word.isdecimal() and int(word[:15]) in known:
        return str(known[int(word)].get("mount point"))
    path = place(word)
    if top(path) is not None:
        return path
    found = mounts_of(word, known)
    if len(found) > 1:
        raise UsageError(f"{word}: is mounted {len(found)} times: say which: {', '.join(map(printable, found))}")
    if not found:
        raise SystemCallError(f"{word}: nothing is mounted there")
    return found[0]
