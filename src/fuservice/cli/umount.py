"""``fuservice umount``: unmount cleanly; if that fails, by force, saying so; lazily only if asked to.

What is meant may be a mount point, a source, or a number that ``fuservice list`` shows. A directory that was made for the mount
goes with it.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from fuservice.backends import choose
from fuservice.cli import made, mine, records
from fuservice.errors import (
    EXIT_OK,
    LONGEST_SENTENCE,
    FuserviceError,
    PolicyError,
    RefusalError,
    SystemCallError,
    UsageError,
    printable,
)
from fuservice.launch import receipts
from fuservice.linux import mountapi, mountinfo
from fuservice.linux.fds import Fd
from fuservice.linux.servers import connection_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Final, NoReturn

    from fuservice.backends.backend import Backend

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PATIENCE: Final = 1.0  # seconds: for a server to answer, for users of an aborted mount to notice
CONNECTION: Final = "/sys/fs/fuse/connections/{}/abort"
WAY_OUT: Final = "; somebody has a file or directory of it open (fuser -vm shows whom): end them, or use -l"
PRIVATE: Final = "namespace"  # the back end
UNMOUNTED: Final = "unmounted by `fuservice umount'"


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("umount", help="unmount", description=__doc__)
    command.add_argument(
        "words", nargs="*", metavar="MOUNTPOINT", help="or its source, or its number; none: the only one that there is"
    )
    command.add_argument("-a", "--all", action="store_true", help="all mounts of yours")
    command.add_argument(
        "-l", "--lazy", action="store_true", help="detach now, even if busy: users of it keep it until they end"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Unmount. FuserviceError where nothing of ours is mounted there, or it cannot be unmounted; the others are, all the same."""
    known = mine.open_receipts()
    failure: FuserviceError | None = None
    for word in _meant(options, known):
        if failure is not None:
            _say(str(failure))
            failure = None
        try:
            _one(word, known, lazy=options.lazy)
        except FuserviceError as error:
            failure = error
    if failure is not None:
        raise failure


def _meant(options: argparse.Namespace, known: dict[int, receipts.Facts]) -> list[str]:
    """Return the words for what is to be unmounted. UsageError where none was typed, and it is not plain which is meant."""
    if options.all and options.words:
        raise UsageError("umount: --all goes without words")
    if options.words:
        return list(options.words)
    there = [number for number in known if mine.is_there(known[number])]
    if options.all:
        return [str(number) for number in reversed(there)]
    if len(there) != 1:
        which = (
            "; ".join(f"{number} is {known[number].get('mount point')}" for number in there) or "you have mounted none"
        )
        raise UsageError(f"umount: which mount? Expected MOUNTPOINT, its source or its number: {which}")
    _say(f"{known[there[0]].get('mount point')}: the only mount of yours")
    return [str(there[0])]


def _one(word: str, known: dict[int, receipts.Facts], *, lazy: bool) -> None:
    """Unmount what *word* means, and forget it."""
    private = mine.find_private(word, known)
    if private is not None:
        _ask(choose.choose(PRIVATE), private, lazy=lazy)
        _forget(
            [
                number
                for number in known
                if known[number].get("mount point") == private and mine.is_private(known[number])
            ],
            private,
        )
        return
    path = mine.find(word, known)
    mount = mine.top(path)
    if mount is None:
        raise SystemCallError(f"{word}: nothing is mounted there")
    if not mine.is_fuse(mount):
        raise SystemCallError(f"{word}: is a mount of {mount.fstype}, not of FUSE: use umount(8)")
    owner = mine.owner(mount)
    if os.geteuid() not in (0, owner):
        raise PolicyError(f"{word}: was mounted by uid {owner}: that user and root can unmount it, and nobody else")
    number, identity = mine.receipt_of(mount, known), mine.identity(path)
    backend = _backend(known[number] if number is not None else {})
    if backend is None:
        _unmount(path, mount, lazy=lazy)
    else:
        _ask(backend, path, lazy=lazy)
    if identity is not None:
        records.remove(identity)
    _forget([] if number is None else [number], path)


def _forget(numbers: list[int], path: str) -> None:
    """Note the end of what was mounted at *path*, and remove the directory that was made for it."""
    for number in numbers:
        receipts.ended(number, UNMOUNTED)
    made.remove(path)


def _backend(facts: receipts.Facts) -> Backend | None:
    """Return who unmounts for us: who has attached it, if that is known and another than we; None: we, with our own rights."""
    name = facts.get("back end")
    backend = choose.choose(name if isinstance(name, str) and name != "root" else None)
    return None if backend.name == "root" else backend


def _ask(backend: Backend, path: str, *, lazy: bool) -> None:
    try:
        backend.detach(path, lazy=lazy)
    except RefusalError as refusal:
        raise SystemCallError(f"{refusal}{WAY_OUT if refusal.errno == errno.EBUSY else ''}") from None


def _unmount(path: str, mount: mountinfo.Mount, *, lazy: bool) -> None:
    flags = mountapi.UMOUNT_NOFOLLOW | (mountapi.MNT_DETACH if lazy else 0)
    error = _umount2(path, flags, mount)
    if error == errno.EBUSY:
        _say(f"{path}: busy: aborting its connection, whoever uses it will get errors")
        deadline = time.monotonic() + PATIENCE
        flags = mountapi.UMOUNT_NOFOLLOW | mountapi.MNT_FORCE
        while (error := _umount2(path, flags, mount)) == errno.EBUSY and time.monotonic() < deadline:
            time.sleep(0.02)  # whoever waited in it needs a moment to let go
    if error and _is_still_there(mount):  # whoever looks after the server may have been quicker, once it was dead
        reason = f"{os.strerror(error)}{WAY_OUT if error == errno.EBUSY else ''}"
        raise SystemCallError(f"{path}: cannot be unmounted: {reason}")


def _umount2(path: str, flags: int, mount: mountinfo.Mount) -> int:
    """Call umount2(2) and return its errno, but wait for it with a bound: of a fuseblk mount, it waits for the server.

    By then nobody sees the mount any more. A child waits, which may have to stay.
    """
    pid = os.fork()
    if pid == 0:
        _call(path, flags)
    with Fd(os.pidfd_open(pid)) as child:
        if not _ends(child, PATIENCE):
            _say(f"{path}: its server does not answer: aborting its connection")
            _abort(mount)
            if not _ends(child, PATIENCE):
                if _is_still_there(mount):
                    raise SystemCallError(f"{path}: cannot be unmounted: umount(2) does not return")
                _say(f"{path}: is unmounted, but its server keeps {mount.source} busy until it ends")
                return EXIT_OK
        result = os.waitid(os.P_PIDFD, child.fileno(), os.WEXITED)
    return result.si_status if result else 0


def _is_still_there(mount: mountinfo.Mount) -> bool:
    return any(there.mount_id == mount.mount_id for there in mountinfo.mounts())


def _call(path: str, flags: int) -> NoReturn:
    os.closerange(0, 3)  # whoever reads what we print does not wait for this child
    try:
        mountapi.umount2(path, flags)
    except OSError as error:
        os._exit(error.errno or errno.EIO)
    os._exit(EXIT_OK)


def _ends(child: Fd, seconds: float) -> bool:
    poll = select.poll()
    poll.register(child.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _abort(mount: mountinfo.Mount) -> None:
    try:
        with open(CONNECTION.format(connection_number(mount.device)), "wb") as abort:  # noqa: PTH123
            abort.write(b"1")
    except OSError:
        return  # fusectl is not mounted


def _say(sentence: str) -> None:
    print(f"fuservice: {printable(sentence, LONGEST_SENTENCE)}", file=sys.stderr)
