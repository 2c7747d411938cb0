"""Where things are: sockets, units, and the program that units start. ``fuservice config`` tells others of it."""

from __future__ import annotations

from fuservice.proto.layouts import SOCKET_DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

#: Of every socket: its directory, and its permission bits.
SOCKETS: Final = SOCKET_DIRECTORY
SOCKET_MODE: Final = 0o220

#: The same for a user's own manager, where no other user comes in; "%t" is XDG_RUNTIME_DIR (systemd.unit(5)).
USER_SOCKETS: Final = f"%t/{SOCKET_DIRECTORY.rpartition('/')[2]}"
USER_SOCKET_MODE: Final = 0o600

#: An empty filesystem, the root of all servers that units start; its unit's name is made from it (systemd.unit(5)).
ROOT: Final = "/run/fuservice/root"

#: For units of the administrator's own, and, below a prefix, for those of packages.
SYSTEM_UNITS: Final = "/etc/systemd/system"
PACKAGED_UNITS: Final = "lib/systemd/system"

#: The same for all users' managers; and, below XDG_CONFIG_HOME, for one's own.
USER_UNITS: Final = "/etc/systemd/user"
PACKAGED_USER_UNITS: Final = "lib/systemd/user"
OWN_UNITS: Final = "systemd/user"

#: What any Python needs, whether or not /usr has swallowed the others. "-": if it exists (systemd.exec(5)).
_READABLE: Final = ("/usr", "-/lib", "-/lib64", "-/etc/ld.so.cache")
_EXECUTABLE: Final = ("/usr/lib", "-/usr/lib64", "-/lib", "-/lib64")
#: What ProtectHome= is about.
_HOMES: Final = ("/home", "/root", "/run/user")


class Program:
    """How a unit starts a server: *python*, which finds this package; outside of /usr they read *directories*."""

    __slots__ = ("directories", "python")

    def __init__(self, python: str, directories: Sequence[str] = ()) -> None:
        self.python, self.directories = python, tuple(directories)

    def command(self, name: str) -> str:
        """Return the command line of the server of type *name*; the instance's name ends with the caller's uid."""
        return f"{self.python} -I -m fuservice.cli.unit {name} %i"

    def stopped(self, name: str) -> str:
        """Return the command line that is executed, with all rights, after such a server that did not end well."""
        nothing_left = 'case "$EXIT_CODE$EXIT_STATUS" in exited[01]) exit;; esac'  # or each connection of a crowd would cost a Python
        return f"+:/bin/sh -c '{nothing_left}; exec {self.python} -I -m fuservice.cli.stopped {name} %i'"

    def supervised(self, name: str) -> str:
        """Return the command line of the server of type *name* that has a process to look after it, and builds its cage itself."""
        return f"{self.python} -I -m fuservice.cli.main serve {name}"

    def tidied(self) -> str:
        """Return the command line that is executed after such a server that died."""
        return f"{self.python} -I -m fuservice.cli.tidied"

    def words(self) -> dict[str, str]:
        """Return what directives name: directories that are bound, those of which code is executed, and what shows of homes.

        "opened" is empty where nothing is to be said.
        """
        at_home = any(f"{path}/".startswith(f"{home}/") for path in self.directories for home in _HOMES)
        interpreter = () if self.python.startswith(_EXECUTABLE) else (self.python,)
        return {
            "homes": "tmpfs" if at_home else "yes",
            "opened": " ".join(f"{home}:ro,mode=0755" for home in _HOMES) if at_home else "",
            "readable": " ".join([*_READABLE, *self.directories]),
            "executable": " ".join([*interpreter, "/usr/bin", *_EXECUTABLE, *self.directories]),
        }
