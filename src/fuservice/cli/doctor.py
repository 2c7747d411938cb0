"""``fuservice doctor``: could this user mount here, by whom, with which server, in which cage; and if not, what would help.

Nothing is guessed that can be tried: the cage is entered by a process that ends, a namespace is made, the device is opened.
"""

from __future__ import annotations

import json
import os
import stat
import time

from fuservice.backends import choose
from fuservice.backends.namespace import NO_NAMESPACE, Namespace
from fuservice.cli import runtime
from fuservice.drivers import catalog
from fuservice.errors import EXIT_OK, PolicyError, printable
from fuservice.helper import fuseconf
from fuservice.helper.caller import fuse_mounts
from fuservice.launch.child import SUPERVISOR, Contained
from fuservice.launch.direct import Direct
from fuservice.launch.state import States
from fuservice.linux import fusedev, landlock, syscalls
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Final, TypeAlias

    from fuservice.backends.backend import Backend

    Finding: TypeAlias = dict[str, str | bool | int | None]

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PATIENCE: Final = 30.0  # seconds for a process to enter its cage
_SOCKET: Final = 3
_ENTERED: Final = b"entered"
_LOAD_FUSE: Final = "load the kernel's module: modprobe fuse (in a container: start it with --device /dev/fuse)"
_OPEN_FUSE: Final = "it must be writable for its users: mode 0666, which udev gives it (chmod 666 /dev/fuse)"


class Report:
    """What was found."""

    def __init__(self) -> None:
        """Look at everything; takes some hundredths of a second."""
        self.device, self.way_out = _device()
        self.backends = [_backend(kind()) for kind in choose.ALL]
        usable = [str(backend["name"]) for backend in self.backends if backend["usable"]]
        self.taken = next(iter(usable), None) if self.device is None else None
        self.cage = _try_cage()
        ours = "a server that we start" if self.cage is None else None
        sockets = {name: runtime.listening(name) for name in catalog.DRIVERS}
        self.servers: list[Finding] = [
            {"type": name, "by": _whose(socket) if socket else ours, "socket": socket}
            for name, socket in sockets.items()
        ]

    @property
    def possible(self) -> bool:
        """Whether this user could mount something."""
        return self.taken is not None and any(server["by"] for server in self.servers)

    def why_not(self) -> PolicyError:
        """Return what is missing, with what would help."""
        if self.device is not None:
            return PolicyError(f"doctor: nothing can be mounted: {self.device}: {self.way_out}")
        if self.taken is None:
            return PolicyError(
                "doctor: nothing can be mounted: ask for fusermount3 (package fuse3), for user namespaces, or for fuserviced"
            )
        return PolicyError(
            f"doctor: nothing can be mounted: no service listens, and the cage of a server of one's own cannot be built: {self.cage}"
        )

    def as_json(self) -> dict[str, object]:
        """Return all of it."""
        conf = fuseconf.read(lambda _sentence: None)
        return {
            "possible": self.possible, "back end": self.taken, "back ends": self.backends, "device": self.device,
            "fuse.conf": {"user_allow_other": conf.user_allow_other, "mount_max": conf.mount_max, "mounted": fuse_mounts()},
            "cage": self.cage, "walls": _walls(self.backends), "servers": self.servers,
        }  # fmt: skip


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "doctor",
        help="tell whether you can mount here, and how",
        description="Tell whether you can mount here, who attaches, who serves, in which cage; else what would help.",
    )
    command.add_argument("--json", action="store_true", help="print for programs")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print it; PolicyError, with the way out, where nothing could be mounted."""
    report = Report()
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        print("\n".join(words(report)))
    if not report.possible:
        raise report.why_not()


def words(report: Report) -> list[str]:
    """Return the report for people."""
    facts = report.as_json()
    lines = ["Who attaches a mount:"]
    for backend in report.backends:
        taken = " (taken)" if backend["name"] == report.taken else ""
        only = ", only for `fuservice run' and `mount --private'" if backend["name"] == Namespace.name else ""
        state = f"can{only}{taken}" if backend["usable"] else f"cannot: {backend['why not']}"
        lines.append(f"  {backend['name']:<12} {state}")
    lines += ["Device and rules:", f"  /dev/fuse    {report.device or 'can be opened'}"]
    conf = facts["fuse.conf"]
    assert isinstance(conf, dict)
    limit = "no limit" if conf["mount_max"] == fuseconf.NO_LIMIT else f"{conf['mount_max']} for users"
    allowed = "allowed" if conf["user_allow_other"] else "for root alone (user_allow_other is not set)"
    lines += [f"  allow_other  {allowed}", f"  mounts       {conf['mounted']} of FUSE, {limit}", "Who serves it:"]
    for server in report.servers:
        where = f", at {server['socket']}" if server["socket"] else ""
        lines.append(f"  {server['type']:<12} {server['by'] or 'nobody'}{where}")
    lines += [
        "The cage of a server that we start:",
        f"  whole        {'it was tried: yes' if report.cage is None else f'no: {report.cage}'}",
    ]
    lines += [f"  {name:<12} {value}" for name, value in _walls(report.backends).items()]
    return [printable(line, 1_000) for line in lines]


def _backend(backend: Backend) -> Finding:
    reason = backend.why_not()
    return {"name": backend.name, "usable": reason is None, "why not": reason}


def _whose(socket: str) -> str:
    own = runtime.runtime_directory()
    return "a service of your own" if own and socket.startswith(f"{own}/") else "a service of the system's"


def _device() -> tuple[str | None, str]:
    """Return what is wrong with the fuse device, None if nothing is; and what would help."""
    try:
        fusedev.open_device().close()
    except PermissionError:
        mode = stat.S_IMODE(os.stat(fusedev.DEVICE).st_mode)  # noqa: PTH116
        return f"{fusedev.DEVICE} may not be opened by this user (its mode is {mode:04o})", _OPEN_FUSE
    except OSError as error:
        return f"{fusedev.DEVICE}: {error.strerror}", _LOAD_FUSE
    return None, ""


def _walls(backends: Sequence[Finding]) -> dict[str, str]:
    """Return what the kernel has for a cage; *backends* know whether namespaces can be made."""
    reason = next((str(backend["why not"] or "") for backend in backends if backend["name"] == Namespace.name), "")
    spaces = reason if reason.startswith(NO_NAMESPACE) else "can be made"
    try:
        landlocked = f"version {landlock.version()}"
    except OSError as error:
        landlocked = f"none: {error.strerror}"
    machine = syscalls.this_machine()
    filters = f"a filter for {machine}" if machine in syscalls.MACHINES else f"no filter for {machine}"
    return {"namespaces": spaces, "landlock": landlocked, "seccomp": filters}


def _try_cage() -> str | None:
    """Have a process enter the cage of a server that this user starts; return why it could not, or None."""
    try:
        process = Direct("fuservice-try", _load, States(""))
    except OSError as error:
        return f"no process can be started: {error.strerror}"
    entered = b""
    try:
        process.connection.deadline = time.monotonic() + PATIENCE
        entered = process.connection.receive(len(_ENTERED))
    except OSError:
        pass  # what it has said says why
    finally:
        process.connection.close()
        said = process.end()
    return None if entered == _ENTERED else "; ".join(said) or "the process that tried it has said nothing"


def _load() -> Contained:
    return Contained(_say_so)


def _say_so(_name: str) -> int:
    """Be the process, in its cage."""
    os.close(int(os.environ.pop(SUPERVISOR)))  # there will be no fuse device
    FdSeqPacket(Fd(_SOCKET)).send(_ENTERED)
    return EXIT_OK
