"""/etc/fuservice/broker.conf: for whom the broker mounts, how many, and with which options. One line for each rule:

    allow WHOM [mounts=N] [options=WORD,...]
    deny WHOM

WHOM is ``user NAME``, ``group NAME`` or ``everybody``; names may be numbers. The first line that is about a caller decides,
and whom no line is about is refused. ``mounts`` is how many FUSE mounts one user may have at once (32). ``options`` are the
words that may loosen a mount, of rw, exec, symfollow and allow_other; without it all may, and allow_other as fuse.conf says.
"#" begins a comment. Without the file it is ``allow everybody``. An error refuses everybody.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat

from fuservice.errors import PolicyError
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Final

PATH: Final = "/etc/fuservice/broker.conf"
LARGEST: Final = 1 << 16  # bytes
MOUNTS: Final = 32
MOST_MOUNTS: Final = 100_000
WORDS: Final = ("rw", "exec", "symfollow", "allow_other")


class Rule:
    """What one line says. *whom*: the uid or gid, None for everybody."""

    __slots__ = ("allows", "group", "line", "mounts", "whom", "words")

    def __init__(self, line: int, *, allows: bool, group: bool, whom: int | None, mounts: int = MOUNTS,
                 words: Collection[str] = WORDS) -> None:  # fmt: skip
        self.line, self.allows, self.group, self.whom, self.mounts, self.words = (
            line,
            allows,
            group,
            whom,
            mounts,
            words,
        )

    def is_about(self, uid: int, gids: Collection[int]) -> bool:
        """Say whether the line is about user *uid*, who is in the groups *gids*."""
        return self.whom is None or (self.whom in gids if self.group else self.whom == uid)


class Policy:
    """All rules, in their order; or why there are none that hold."""

    def __init__(self, rules: Sequence[Rule], error: str = "") -> None:
        self.rules, self.error = rules, error

    def rule(self, uid: int, gids: Collection[int]) -> Rule:
        """Return the rule under which user *uid*, in groups *gids*, may have something mounted. PolicyError where there is none."""
        if self.error:
            raise PolicyError("the broker's policy has an error, so it mounts for nobody: its log says where")
        rule = next((rule for rule in self.rules if rule.is_about(uid, gids)), None)
        if rule is None:
            raise PolicyError(f"the broker's policy, {PATH}, has no rule for you (uid {uid}): ask the administrator")
        if not rule.allows:
            raise PolicyError(
                f"the broker's policy, {PATH}, denies you mounts in line {rule.line}: ask the administrator"
            )
        return rule


def parse(text: str, *, uid_of: Callable[[str], int], gid_of: Callable[[str], int]) -> Policy:
    """Return the policy in *text*; PolicyError names the first line that is no rule. KeyError of the two: no such name."""
    rules = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        try:
            if words:
                rules.append(_rule(words, number, uid_of, gid_of))
        except (ValueError, KeyError) as error:
            raise PolicyError(f"{PATH}:{number}: {error.args[0]}") from None
    return Policy(rules)


def _rule(words: Sequence[str], line: int, uid_of: Callable[[str], int], gid_of: Callable[[str], int]) -> Rule:
    match words:
        case [("allow" | "deny") as verb, "everybody", *rest]:
            whom, group = None, False
        case [("allow" | "deny") as verb, "user", name, *rest]:
            whom, group = _id(name, uid_of, "user"), False
        case [("allow" | "deny") as verb, "group", name, *rest]:
            whom, group = _id(name, gid_of, "group"), True
        case _:
            raise ValueError("expected `allow' or `deny', and then `user NAME', `group NAME' or `everybody'")
    if verb == "deny":
        if rest:
            raise ValueError(f"`{rest[0]}' after `deny': a denial has no options")
        return Rule(line, allows=False, group=group, whom=whom)
    mounts, options = _grants(rest)
    return Rule(line, allows=True, group=group, whom=whom, mounts=mounts, words=options)


def _grants(words: Sequence[str]) -> tuple[int, Collection[str]]:
    """Return what ``mounts=`` and ``options=`` say, each at most once."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("mounts", "options") or not equals:
            raise ValueError(f"`{word}': expected mounts=N or options=WORD,...")
        if name in found:
            raise ValueError(f"`{name}=' twice")
        found[name] = value
    number = found.get("mounts", str(MOUNTS))
    if not (number.isascii() and number.isdecimal() and len(number) < 7 and int(number) <= MOST_MOUNTS):
        raise ValueError(f"`mounts={number}': expected a number up to {MOST_MOUNTS}")
    options = [word for word in found.get("options", ",".join(WORDS)).split(",") if word]
    if strange := [word for word in options if word not in WORDS]:
        raise ValueError(f"`options={strange[0]}': expected words of {', '.join(WORDS)}")
    return int(number), frozenset(options)


def _id(name: str, find: Callable[[str], int], kind: str) -> int:
    if name.isascii() and name.isdecimal():
        if len(name) > 10 or int(name) >= 0xFFFF_FFFF:
            raise ValueError(f"{kind} {name}: is beyond what ids are")
        return int(name)
    try:
        return find(name)
    except KeyError:
        raise ValueError(f"there is no {kind} `{name}'") from None


def load(path: str = PATH) -> Policy:
    """Return the policy that is in force, with the reason where it is none: then it refuses everybody. Asks for names."""
    try:
        text = _read(path)
        if text is None:
            return Policy([Rule(0, allows=True, group=False, whom=None)])
        return parse(text, uid_of=lambda name: pwd.getpwnam(name).pw_uid, gid_of=lambda name: grp.getgrnam(name).gr_gid)
    except PolicyError as error:
        return Policy([], str(error))


def _read(path: str) -> str | None:
    try:
        with Fd(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
                raise PolicyError(
                    f"{path}: must be a file of root's that nobody else may write to (chown root, chmod go-w)"
                )
            raw = os.read(file.fileno(), LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from None
    if len(raw) > LARGEST:
        raise PolicyError(f"{path}: over {LARGEST} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: byte {error.start} is not UTF-8") from None


def stamp(path: str = PATH) -> tuple[int, int, int] | None:
    """Return what changes when the file does; None where there is none. OSError where that cannot be seen."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def has_changed(since: tuple[int, int, int] | None, path: str = PATH) -> bool:
    """Say whether the file is another one than when its stamp was *since*; no, where that cannot be seen."""
    try:
        return stamp(path) != since
    except OSError:
        return False
