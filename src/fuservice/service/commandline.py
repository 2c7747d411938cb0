"""The command line of a server: the standard options of FUSE servers, and what goes into the mount.

The words come from the caller by way of the helper; they are parsed once, here. mount.fuse3(8) lists the options.
"""

from __future__ import annotations

from fuservice.errors import UsageError
from fuservice.proto import layouts
from fuservice.proto.options import CLEARS, SETS, apply, join, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Final

_KERNEL: Final = ("allow_other", "default_permissions", "max_read", "blksize")
#: Options of libfuse's session that mean nothing to this engine, and harm nothing.
_ACCEPTED: Final = (
    "clone_fd",
    "max_idle_threads",
    "max_threads",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "users",
    "nouser",
)
DEFAULT_FLAGS: Final = layouts.MS_NOSUID | layouts.MS_NODEV


class CommandLine:
    """The words of a server, sorted."""

    def __init__(self) -> None:
        self.positional: list[str] = []
        self.show_help = self.show_version = self.debug = False
        self.flags = DEFAULT_FLAGS  # mount(2)'s
        self.fsname: str | None = None
        self.subtype: str | None = None
        self.fuseblk = self.allow_root = self.auto_unmount = False
        self.kernel: list[str] = []  # options for the kernel's fuse, as typed
        self.mtab: list[str] = []  # options that only /run/mount/utab shows
        self.own: dict[str, str | None] = {}  # the server's own options
        self.unknown: list[str] = []  # words that nobody knows

    def check_known(self) -> None:
        """UsageError that names every word that nobody knows, as libfuse does: ``unknown option(s): `-o nosuchoption'``."""
        if self.unknown:
            raise UsageError(f"unknown option(s): `{' '.join(self.unknown)}'")

    @property
    def suid(self) -> bool:
        """Whether set-user-ID bits were asked for."""
        return not self.flags & layouts.MS_NOSUID

    @property
    def dev(self) -> bool:
        """Whether device nodes were asked for."""
        return not self.flags & layouts.MS_NODEV


def parse_cmdline_opts(args: Sequence[str], own: Collection[str] = ()) -> CommandLine:
    """Sort *args* (the program's name first); *own* are the names of the server's own ``-o`` options.

    What nobody knows is kept, and judged by the mount (``check_known``): libfuse's servers ask for their files before.
    """
    line = CommandLine()
    words = iter(args[1:])
    for word in words:
        if word == "--":
            line.positional += words
        elif word == "-o":
            line.unknown += _options(line, next(words, ""), own)
        elif word.startswith("-o"):
            line.unknown += _options(line, word[2:], own)
        elif not word.startswith("-") or word == "-":
            line.positional.append(word)
        elif not _switch(line, word):
            line.unknown.append(word)
    return line


def _switch(line: CommandLine, word: str) -> bool:
    match word:
        case "-h" | "--help":
            line.show_help = True
        case "-V" | "--version":
            line.show_version = True
        case "-d" | "--debug":
            line.debug = True
        case "-r":
            line.flags |= layouts.MS_RDONLY
        case "-n":
            line.mtab.append(word)  # the helper knows it as "note nothing"
        case "-f" | "-s":  # a service is in the foreground, and its driver knows how many threads it needs
            pass
        case _:
            return False
    return True


def _options(line: CommandLine, text: str, own: Collection[str]) -> list[str]:
    """Sort the options of one ``-o`` word; return the unknown ones as they should be named."""
    return [f"-o {join(name, value)}" for name, value in split(text) if not _option(line, name, value, own)]


def _option(line: CommandLine, name: str, value: str | None, own: Collection[str]) -> bool:
    if name in own:
        line.own[name] = value
    elif name in SETS or name in CLEARS:
        line.flags = apply(line.flags, name)
    elif name in _KERNEL:
        line.kernel.append(join(name, value))
    elif name == "fsname" and value:
        line.fsname = value
    elif name == "subtype" and value:
        line.subtype = value
    elif name == "blkdev":
        line.fuseblk = True
    elif name == "allow_root":  # the kernel knows only allow_other: who else is refused by us
        line.allow_root = True
        line.kernel.append("allow_other")
    elif name == "auto_unmount":
        line.auto_unmount = True
    elif name == "debug":
        line.debug = True
    elif name in ("user", "nofail") or name.startswith("x-"):
        line.mtab.append(join(name, value))
    else:
        return name in _ACCEPTED
    return True
