"""Receipts: what was asked, granted and mounted, and how it ended, for ``fuservice why``. One JSON file each, ``N.json``.

Beside it are notes, ``N.log``: what the server has said, where somebody takes them down.

A receipt never fails a mount: where it cannot be written, there is none. It says what was; what is mounted is the kernel's
to say. json is imported where it is used, since that costs the start of a mount.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, TypeAlias

    Fact: TypeAlias = "str | int | float | bool | list[Fact] | dict[str, Fact] | None"
    Facts: TypeAlias = dict[str, Fact]

SYSTEM: Final = "/var/lib/fuservice/mounts"
LARGEST: Final = 65_536  # bytes of a file
MOST: Final = 500  # receipts; the oldest ones that have ended go first
LONGEST_AGE: Final = 90 * 86_400  # seconds since the file was written last
UNMOUNTED: Final = "unmounted"  # the reason, of those who do not know by whom
LONGEST_REASON: Final = 1_000  # characters
_ATTEMPTS: Final = 100  # at a number that nobody else takes in the same moment
_SUFFIX: Final = ".json"
_NOTES: Final = ".log"


def directory() -> str:
    """Return where this user's receipts are: /var/lib/fuservice/mounts for root, else in $XDG_STATE_HOME; "" if there is no place.

    Whoever is root in a user namespace that holds nobody else is an ordinary user: there, /var/lib is not root's.
    """
    with suppress(OSError):
        if os.geteuid() == 0 and os.stat("/var/lib").st_uid == 0:  # noqa: PTH116
            return SYSTEM
    state, home = os.environ.get("XDG_STATE_HOME", ""), os.environ.get("HOME", "")
    if not state.startswith("/"):  # the specification has a relative one ignored
        state = f"{home}/.local/state" if home.startswith("/") else ""
    return f"{state}/fuservice/mounts" if state else ""


def reserve() -> int | None:
    """Return a number for a receipt that will be written, and make the file for its notes; None where there can be none."""
    where = directory()
    try:
        _prepare(where)
        number = max(_numbers(where), default=0) + 1
        for wanted in range(number, number + _ATTEMPTS):
            with suppress(FileExistsError):
                os.close(
                    os.open(f"{where}/{wanted}{_NOTES}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                )
                return wanted
    except OSError:
        return None
    return None


def write(facts: Mapping[str, Fact], number: int | None = None, *, noting: bool = False) -> int | None:
    """Record *facts* in a new file, for its owner alone; return its number, or None where there can be none.

    *number*: one that was reserved; else it is a new one. Numbers grow. *noting*: somebody takes notes of it. "id", "began" (seconds
    since 1970) and "boot" are added where they are missing.
    """
    where, number = directory(), number or reserve()
    if number is not None:
        try:
            _put(where, number, _text({"id": number, "began": _now(), "boot": boot(), **facts}))
            if not noting:
                os.unlink(f"{where}/{number}{_NOTES}")  # noqa: PTH108
            _prune(where)
        except OSError:
            return None
    return number


def note(number: int, line: str) -> None:
    """Add *line*, of what the server of receipt *number* has said, to its notes; harmless where there are none, or too many."""
    path = f"{directory()}/{number}{_NOTES}"
    with suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < LARGEST:
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
                os.write(fd, f"{when} {line}\n".encode("utf-8", "backslashreplace"))
        finally:
            os.close(fd)


def notes(number: int) -> list[str] | None:
    """Return what the server of receipt *number* has said since it was mounted; None where nobody has taken notes."""
    try:
        with open(f"{directory()}/{number}{_NOTES}", "rb") as file:  # noqa: PTH123
            return file.read(2 * LARGEST).decode("utf-8", "backslashreplace").splitlines()
    except OSError:
        return None


def update(number: int, facts: Mapping[str, Fact]) -> None:
    """Add *facts* to the receipt *number*; harmless where there is none."""
    where, known = directory(), read(number)
    if known is not None:
        with suppress(OSError):
            _put(where, number, _text(known | dict(facts)))


def ended(number: int, reason: str) -> None:
    """Record that the mount of receipt *number* has ended now, and why.

    The first reason that is told holds, but for UNMOUNTED: whoever has unmounted it knows more.
    """
    known = read(number)
    if known is not None and (known.get("ended") is None or known.get("reason") == UNMOUNTED):
        update(number, {"ended": known.get("ended") or _now(), "reason": reason[:LONGEST_REASON]})


def read(number: int) -> Facts | None:
    """Return the facts of receipt *number*; None where there is none that can be read."""
    import json

    try:
        with open(f"{directory()}/{number}{_SUFFIX}", "rb") as file:  # noqa: PTH123
            facts = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def read_all() -> dict[int, Facts]:
    """Return all receipts of this user by number, the oldest first; files that are none are passed over."""
    try:
        numbers = sorted(_numbers(directory()))
    except OSError:
        return {}
    return {number: facts for number in numbers if (facts := read(number)) is not None}


def is_open(facts: Facts) -> bool:
    """Say whether, for all that was recorded, the mount may still be there."""
    return facts.get("ended") is None and facts.get("boot") == boot()


def boot() -> str:
    """Return the name of this boot of the machine: ids of mounts and numbers of processes are of one boot (random(4))."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def _now() -> float:
    return round(time.time(), 3)


def _prepare(where: str) -> None:
    """Make the directory *where*; OSError where there can be none, or others could write into it."""
    if not where:
        raise FileNotFoundError(where)
    _make(where)
    status = os.stat(where)  # noqa: PTH116
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(where)


def _make(where: str) -> None:
    """Make the directory *where*, and those above it: none that others may write to, as makedirs() would with the umask 0."""
    if not os.path.isdir(where):  # noqa: PTH112
        _make_above(os.path.dirname(where))  # noqa: PTH120
        with suppress(FileExistsError):
            os.mkdir(where, 0o700)  # noqa: PTH102


def _make_above(path: str) -> None:
    if not os.path.isdir(path):  # noqa: PTH112
        _make_above(os.path.dirname(path))  # noqa: PTH120
        with suppress(FileExistsError):
            os.mkdir(path, 0o755)  # noqa: PTH102


def _numbers(where: str) -> list[int]:
    """Return the numbers that are taken: a receipt has notes from the start."""
    words = {name.rpartition(".")[0] for name in os.listdir(where) if name.endswith((_SUFFIX, _NOTES))}
    return [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 16]


def _text(facts: Facts) -> bytes:
    """Return the content of a file; without what is long where it would be larger than readers take."""
    import json

    text = json.dumps(facts, indent=1).encode()
    if len(text) > LARGEST:
        text = json.dumps(facts | {"argv": None, "options": None}, indent=1).encode()
    return text


def _put(where: str, number: int, text: bytes) -> None:
    """Write a file, so that whoever reads sees all of it or what was there before."""
    draft = f"{where}/.{number}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123
            file.write(text)
        os.rename(draft, f"{where}/{number}{_SUFFIX}")  # noqa: PTH104
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)  # noqa: PTH108
        raise


def _prune(where: str) -> None:
    """Remove the oldest receipts where they are too many or too old. What may still be mounted is not forgotten."""
    numbers, now = sorted(_numbers(where)), time.time()
    surplus = len(numbers) - MOST
    for place, number in enumerate(numbers):
        if place >= surplus and now - _written(where, number) <= LONGEST_AGE:
            break  # the later ones are younger
        facts = read(number)
        if facts is None or not is_open(facts):
            for suffix in (_SUFFIX, _NOTES):
                with suppress(FileNotFoundError):
                    os.unlink(f"{where}/{number}{suffix}")  # noqa: PTH108


def _written(where: str, number: int) -> float:
    """Return when the receipt, or else its notes, were written last."""
    for suffix in (_SUFFIX, _NOTES):
        with suppress(FileNotFoundError):
            return os.stat(f"{where}/{number}{suffix}").st_mtime  # noqa: PTH116
    return 0.0
