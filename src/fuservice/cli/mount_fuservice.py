"""``mount.fuservice``: what mount(8) runs for ``mount -t fuservice.TYPE SOURCE MOUNTPOINT`` and for lines of fstab.

It translates mount(8)'s words into those of fuservicemount and mounts; it never falls back to an uncaged server.
"""

from __future__ import annotations

import os
import sys

from fuservice.errors import EXIT_FAILURE, EXIT_OK
from fuservice.linux import mountinfo
from fuservice.linux.capabilities import capabilities
from fuservice.proto.options import join, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

CAP_SYS_ADMIN: Final = 1 << 21  # linux/capability.h
PREFIX: Final = "fuservice"
USAGE: Final = "Usage: {program} SOURCE MOUNTPOINT [-sfnvrw] [-t fuservice.TYPE] [-o options]"

#: Options that are for mount(8), fstab and systemd alone. The server never hears of them (mount(8), fstab(5)).
FOR_MOUNT: Final = frozenset((
    "defaults", "auto", "noauto", "user", "users", "owner", "group", "nouser", "nousers", "noowner", "nogroup",
    "nofail", "_netdev", "loop", "remount", "bind",
))  # fmt: skip
TRANSIENT: Final = "transient"  # ours: an option, since mount(8) passes no words of other kinds (nor x-...)
REFUSED: Final = {
    "remount": "a mount cannot be changed: unmount it and mount it again",
    "bind": "this is no bind mount",
    "loop": "the source may be a regular file: leave `loop' out",
}


class Words:
    """mount(8)'s words, sorted."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.fake = self.verbose = self.without_mtab = False
        self.namespace: str | None = None
        self.fstype = ""
        self.options: list[tuple[str, str | None]] = []
        self.positional: list[str] = []
        self.unknown: str | None = None
        words = iter(argv[1:])
        for word in words:
            if word in ("-t", "-o", "-N"):
                self._valued(word, next(words, ""))
            elif word.startswith("-") and len(word) > 1 and not word.startswith("--"):
                for letter in word[1:]:
                    self._letter(letter)
            else:
                self.positional.append(word)

    def _valued(self, word: str, value: str) -> None:
        if word == "-t":
            self.fstype = value
        elif word == "-o":
            self.options += split(value)
        else:
            self.namespace = value

    def _letter(self, letter: str) -> None:
        match letter:
            case "f":
                self.fake = True
            case "v":
                self.verbose = True
            case "n":
                self.without_mtab = True
            case "r":
                self.options.append(("ro", None))
            case "w":
                self.options.append(("rw", None))
            case "s" | "i":  # sloppy: options that the server does not know are still its to refuse
                pass
            case _:
                self.unknown = f"-{letter}"

    def has(self, name: str) -> bool:
        """Whether option *name* was given."""
        return any(name == option for option, _ in self.options)


def translate(argv: Sequence[str]) -> list[str] | int:
    """Return the helper's command line for *argv* (the program's name first), or the exit code where nothing is left to do."""
    program = argv[0]
    words = Words(argv)

    def say(sentence: str) -> int:
        print(f"{program}: {sentence}", file=sys.stderr)
        return EXIT_FAILURE

    if words.unknown is not None or len(words.positional) != 2:
        print(USAGE.format(program=program), file=sys.stderr)
        return EXIT_FAILURE
    subtype, source = type_and_source(words.fstype, words.positional[0])
    if why := refusal(words, subtype):
        return say(why)
    if words.has("nofail") and source.startswith("/") and not os.path.lexists(source):
        return EXIT_OK  # as mount(8) does for a device that is not there
    helper = helper_words(program, words, subtype, source)
    if words.verbose:
        print(" ".join(helper), flush=True)  # before what the helper says
    # mount(8) looks for what fstab calls the source; where that is TYPE#SOURCE, mountinfo shows another, so we look.
    is_there = source != words.positional[0] and is_mounted(subtype, source, words.positional[1])
    return EXIT_OK if words.fake or is_there else helper


def refusal(words: Words, subtype: str) -> str | None:
    """Return why nothing can be mounted, or None."""
    for option, why in REFUSED.items():
        if words.has(option):
            return f"option {option}: {why}"
    if words.namespace is not None:
        # It would be ours to enter, before anything is opened or imported.
        return "option -N: cannot enter another mount namespace: run mount(8) in it, with nsenter(1)"
    if not subtype:
        return f"which filesystem? expected -t {PREFIX}.TYPE, or TYPE#SOURCE as source"
    if not capabilities()[0] & CAP_SYS_ADMIN:
        # mount(8) may be setuid, but gives that up before it runs us.
        return "mounting needs root: a `user' line in fstab does not give us the right to"
    return None


def is_mounted(subtype: str, source: str, mount_point: str) -> bool:
    """Say whether what shows at *mount_point* is this very *source*, mounted by a service for *subtype*."""
    place = os.path.abspath(mount_point)  # noqa: PTH100
    top = next((mount for mount in reversed(mountinfo.mounts()) if mount.mount_point == place), None)
    return top is not None and top.fstype in (f"fuse.{subtype}", f"fuseblk.{subtype}") and top.source == source


def type_and_source(fstype: str, source: str) -> tuple[str, str]:
    """Return the service's type and the source: from ``-t fuservice.TYPE``, or from TYPE#SOURCE as mount.fuse has it."""
    for prefix in (f"{PREFIX}.", "fuse.", "fuseblk."):
        if fstype.startswith(prefix):
            return fstype[len(prefix) :], source
    if fstype in ("", PREFIX, "fuse") and "#" in source:
        subtype, _, rest = source.partition("#")
        return subtype, rest
    return ("" if fstype in (PREFIX, "fuse") else fstype), source


def helper_words(program: str, words: Words, subtype: str, source: str) -> list[str]:
    """Return the command line of fuservicemount that does what *words* ask."""
    # For `user=NAME' mount(8) adds exec, suid and dev by itself; for `user' only what was typed after it.
    made_up = {"suid", "dev"} if any(name == "user" and value for name, value in words.options) else set[str]()
    kept = [
        join(name, value)
        for name, value in words.options
        if name not in FOR_MOUNT | made_up | {TRANSIENT} and not name.startswith("comment")
    ]
    if words.without_mtab:
        kept = [option for option in kept if not option.startswith(("x-", "user="))]
    options = ",".join(option.replace("\\", "\\\\").replace(",", "\\,") for option in kept)
    how = [f"--{TRANSIENT}"] if words.has(TRANSIENT) else []
    return [program, source, words.positional[1], "-t", subtype, *how, *(["-o", options] if options else [])]
