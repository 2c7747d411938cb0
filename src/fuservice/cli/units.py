"""``fuservice units install|remove|status [TYPE…]``: systemd starts the servers, each in a unit of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import fuservice
from fuservice.drivers import catalog
from fuservice.errors import PolicyError, SystemCallError
from fuservice.units import places
from fuservice.units.root import NAME as ROOT_UNIT
from fuservice.units.root import root
from fuservice.units.service import service
from fuservice.units.socket import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

OLDEST: Final = 252  # of systemd: what the tests run on
RUNS: Final = "/run/systemd/system"  # sd_booted(3)


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("units", help="have systemd start the servers", description=__doc__,
                                  epilog="See fuservice-units(7).")  # fmt: skip
    doings = command.add_subparsers(metavar="install|remove|status", required=True)
    _add(doings, "install", _install, "write the units, have systemd verify them, listen")
    _add(doings, "remove", _remove, "listen no more; servers end with their mounts")
    _add(doings, "status", _status, "say what is installed, and how many mounts it serves")


def _add(doings: Commands, name: str, run: Callable[[argparse.Namespace], None], words: str) -> None:
    doing = doings.add_parser(name, help=words, description=words)
    doing.add_argument("types", nargs="*", metavar="TYPE", help=f"of {', '.join(catalog.DRIVERS)} (all)")
    doing.add_argument("--root", default="", metavar="DIR",
                       help="files are below DIR, and nothing is started or stopped: for packages and images")  # fmt: skip
    doing.add_argument("--prefix", default="", metavar="DIR",
                       help="units of a package: for DIR/bin/python3, into DIR/lib/systemd/system")  # fmt: skip
    if run is not _status:
        doing.add_argument("--dry-run", action="store_true", help="say what would be written or removed, and end")
    doing.set_defaults(run=run)


def _install(options: argparse.Namespace) -> None:
    files = _files(options)
    if options.dry_run:
        print(*files.values(), sep="\n", end="")
        return
    _verify(files)
    directory = _directory(options)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            _write(directory / name, text)
    except OSError as error:
        raise SystemCallError(f"units: {error.filename}: {error.strerror}") from None
    _manager(options, ["daemon-reload"], ["enable", "--now", *map(_socket, _types(options))])


def _remove(options: argparse.Namespace) -> None:
    directory, types = _directory(options), _types(options)
    there = [_socket(name) for name in types if (directory / _socket(name)).exists()]
    if options.dry_run:
        print(*(directory / name for name in there), sep="\n")
        return
    if there:
        _manager(options, ["disable", "--now", *there])
    try:
        for name in types:
            (directory / _socket(name)).unlink(missing_ok=True)
            (directory / _template(name)).unlink(missing_ok=True)
        if not any(directory.glob("fuservice-*.socket")):
            _leave(options, directory / ROOT_UNIT)
    except OSError as error:
        raise SystemCallError(f"units: {error.filename}: {error.strerror}") from None
    _manager(options, ["daemon-reload"])


def _leave(options: argparse.Namespace, unit: Path) -> None:
    """Remove the root of the servers. Where some are left, it stays mounted: they would end with it, and their mounts."""
    if unit.exists() and not (_started(options) and _instances("*")):
        _manager(options, ["stop", ROOT_UNIT])
    unit.unlink(missing_ok=True)


def _status(options: argparse.Namespace) -> None:
    directory, files = _directory(options), _files(options)
    for name in _types(options):
        path = directory / _socket(name)
        mine = [(directory / one, files[one]) for one in (_socket(name), _template(name))]
        if not path.exists():
            word = "not installed"
        elif all(one.exists() and one.read_text(encoding="utf-8") == text for one, text in mine):
            word = "installed"
        else:
            word = "installed, and not what `fuservice units install' would make"
        if path.exists() and _started(options):
            state = _systemctl("is-active", _socket(name)).stdout.strip()
            word += f"; socket {state}; {len(_instances(name))} servers"
        print(f"{name}: {word}")


def _files(options: argparse.Namespace) -> dict[str, str]:
    """Return name → text of each unit."""
    from fuservice.cli.unit import profile  # and with it what drivers are made of

    program, version = _program(options.prefix), _version()
    files = {ROOT_UNIT: root(version)}
    for name in _types(options):
        files[_socket(name)] = socket(name, places.SOCKETS, places.SOCKET_MODE, version)
        files[_template(name)] = service(name, profile(catalog.find(name)), program, version)
    return files


def _types(options: argparse.Namespace) -> list[str]:
    for name in options.types:
        catalog.where(name)
    return list(dict.fromkeys(options.types)) or list(catalog.DRIVERS)


def _socket(name: str) -> str:
    return f"fuservice-{name}.socket"


def _template(name: str) -> str:
    return f"fuservice-{name}@.service"


def _directory(options: argparse.Namespace) -> Path:
    units = f"{options.prefix}/{places.PACKAGED_UNITS}" if options.prefix else places.SYSTEM_UNITS
    return Path(f"{options.root}{units}")


def _program(prefix: str) -> places.Program:
    """Return how units start us: as we are here, or as a package below *prefix*."""
    if prefix:
        return places.Program(f"{prefix}/bin/python3", [] if prefix == "/usr" else [prefix])
    package = str(Path(fuservice.__file__).parent)
    needed = dict.fromkeys(path for path in (sys.prefix, sys.base_prefix, package) if not path.startswith("/usr/"))
    return places.Program(sys.executable, [path for path in needed if path != "/usr"])


def _version() -> int:
    """Return systemd's version; that of the oldest we know where there is none to ask."""
    try:
        word = _systemctl("--version").stdout.split()[1]
    except (SystemCallError, IndexError):
        return OLDEST
    version = int(word) if word.isdecimal() else OLDEST
    if version < OLDEST:
        raise PolicyError(f"units: systemd {version} lacks walls that units need: expected {OLDEST} or newer (try "
                          "`fuservice listen')")  # fmt: skip
    return version


def _verify(files: Mapping[str, str]) -> None:
    """PolicyError with what systemd has to say about the units, which is nothing where they are right."""
    with suppress(FileNotFoundError):
        directory = Path(tempfile.mkdtemp(prefix="fuservice-units-"))
        try:
            for name, text in files.items():
                (directory / name).write_text(text, encoding="utf-8")
            command = ["systemd-analyze", "verify", "--man=no", *(f"{directory}/{name}" for name in files)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        finally:
            for name in files:
                (directory / name).unlink(missing_ok=True)
            directory.rmdir()
        if done.returncode or done.stderr:
            raise PolicyError(f"units: systemd does not take them, nothing was installed: {done.stderr.strip()}")


def _write(path: Path, text: str) -> None:
    """Put *text* in *path*, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


def _started(options: argparse.Namespace) -> bool:
    return not options.root and os.path.isdir(RUNS)  # noqa: PTH112


def _manager(options: argparse.Namespace, *commands: Sequence[str]) -> None:
    """Have systemd do *commands*, if it runs here and the units are this system's."""
    for command in commands if _started(options) else ():
        done = _systemctl("--quiet", *command)
        if done.returncode:
            raise SystemCallError(f"units: systemctl {' '.join(command)}: {done.stderr.strip()}")


def _instances(name: str) -> list[str]:
    words = ("list-units", "--plain", "--no-legend", "--state=active", f"fuservice-{name}@*.service")
    return _systemctl(*words).stdout.splitlines()


def _systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", *words]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemCallError(f"units: systemctl: {error.strerror}") from None
