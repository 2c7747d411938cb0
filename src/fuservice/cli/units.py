"""``fuservice units install|remove|status [TYPE…]``: systemd starts the servers, each in a unit of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from fuservice.broker import wire
from fuservice.cli import systemd
from fuservice.drivers import catalog
from fuservice.errors import PolicyError, SystemCallError, UsageError
from fuservice.units import broker, places
from fuservice.units.root import NAME as ROOT_UNIT
from fuservice.units.root import root
from fuservice.units.service import service
from fuservice.units.socket import socket, user_socket
from fuservice.units.user import TIDY, tidy_service, user_service

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


PACKAGES: Final = "/usr"  # where packages put what they bring


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
    doing.add_argument(
        "--user", action="store_true", help="units for a user's own manager, or with --prefix for all users'"
    )
    doing.add_argument("--broker", action="store_true",
                       help="the broker in the place of servers: see fuserviced(8)")  # fmt: skip
    if run is not _status:
        doing.add_argument("--dry-run", action="store_true", help="say what would be written or removed, and end")
    doing.set_defaults(run=run)


def _install(options: argparse.Namespace) -> None:
    units, directory, files = _units(options), _directory(options), _files(options)
    if options.dry_run:
        print(*files.values(), sep="\n", end="")
        return
    _check_manager(options)
    _verify(options, files)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            _write(directory / name, text)
    except OSError as error:
        raise SystemCallError(f"units: {error.filename}: {error.strerror}") from None
    _manager(options, ["daemon-reload"], ["enable", "--now", *(one for _, one, _ in units)])


def _remove(options: argparse.Namespace) -> None:
    directory, units = _directory(options), _units(options)
    there = [one for _, one, _ in units if (directory / one).exists()]
    if options.dry_run:
        print(*(directory / name for name in there), sep="\n")
        return
    _check_manager(options)
    if there:
        _manager(options, ["disable", "--now", *there], *([["stop", broker.SERVICE]] if options.broker else []))
    try:
        for _, *names in units:
            for name in names:
                (directory / name).unlink(missing_ok=True)
        if not options.broker and not any(directory.glob("fuservice-*.socket")):
            _leave(options, directory / ROOT_UNIT)
            (directory / TIDY).unlink(missing_ok=True)
    except OSError as error:
        raise SystemCallError(f"units: {error.filename}: {error.strerror}") from None
    _manager(options, ["daemon-reload"])


def _leave(options: argparse.Namespace, unit: Path) -> None:
    """Remove the root of the servers. Where some are left, it stays mounted: they would end with it, and their mounts."""
    if unit.exists() and not (_started(options) and _instances(options, "*")):
        _manager(options, ["stop", ROOT_UNIT])
    unit.unlink(missing_ok=True)


def _status(options: argparse.Namespace) -> None:
    whose = [options]
    if not (options.root or options.prefix):  # what a package has brought counts where the administrator has nothing
        whose.append(type(options)(**{**vars(options), "prefix": PACKAGES}))
    for name, socket_unit, service_unit in _units(options):
        there = next((one for one in whose if (_directory(one) / socket_unit).exists()), None)
        word = "not installed" if there is None else _word(there, name, socket_unit, service_unit)
        print(f"{name}: {word}")


def _word(options: argparse.Namespace, name: str, socket_unit: str, service_unit: str) -> str:
    """Return what there is to say of two units that serve *name*, the first of which is there."""
    directory = _directory(options)
    paths = {one: directory / one for one in (socket_unit, service_unit)}
    missing = [one for one, path in paths.items() if not path.exists()]
    # A package's may be for an older systemd than runs here.
    good = [_files(options, version) for version in range(systemd.OLDEST, systemd.version() + 1)]
    texts = {one: path.read_text(encoding="utf-8") for one, path in paths.items() if one not in missing}
    other = [one for one, text in texts.items() if text not in [files[one] for files in good]]
    words = [f"installed in {directory}"]
    if missing or other:
        what = [*(f"{one} is missing" for one in missing), *(f"{one} is not what this version makes" for one in other)]
        words[0] += f", but {' and '.join(what)}: `fuservice units install' writes it anew"
    if _started(options):
        state = systemd.systemctl(*_whose(options), "is-active", socket_unit).stdout.strip()
        command = " ".join(["systemctl", *_whose(options)])
        hint = {
            "inactive": f" (`{command} enable --now {socket_unit}')",
            "failed": f" (`{command} status {socket_unit}')",
        }
        words.append(f"socket {state}{hint.get(state, '')}")
        if not options.broker:
            number = len(_instances(options, name))
            words.append(f"{number} server{'' if number == 1 else 's'}")
    return "; ".join(words)


def _files(options: argparse.Namespace, version: int | None = None) -> dict[str, str]:
    """Return name → text of each unit, for the systemd that is here, or *version*."""
    from fuservice.cli.unit import profile  # and with it what drivers are made of

    program, version = systemd.program(options.prefix), version or systemd.version()
    if options.broker:
        return {broker.SOCKET: broker.socket(wire.SOCKET, version), broker.SERVICE: broker.service(program, version)}
    files = {TIDY: tidy_service(program, version)} if options.user else {ROOT_UNIT: root(version)}
    for name in _types(options):
        needs = profile(catalog.find(name))
        if options.user:
            files[_socket(name)] = user_socket(name, version)
            files[_template(name)] = user_service(name, needs, program, version)
        else:
            files[_socket(name)] = socket(name, places.SOCKETS, places.SOCKET_MODE, version)
            files[_template(name)] = service(name, needs, program, version)
    return files


def _units(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Return, for the broker or each type, how it is called here, its socket unit, and its service unit."""
    if options.broker:
        if options.user or options.types:
            raise UsageError(
                "units: --broker: it is the system's, and serves no type: expected neither --user nor TYPE"
            )
        return [("broker", broker.SOCKET, broker.SERVICE)]
    return [(name, _socket(name), _template(name)) for name in _types(options)]


def _types(options: argparse.Namespace) -> list[str]:
    for name in options.types:
        catalog.where(name)
    return list(dict.fromkeys(options.types)) or list(catalog.DRIVERS)


def _socket(name: str) -> str:
    return f"fuservice-{name}.socket"


def _template(name: str) -> str:
    return f"fuservice-{name}@.service"


def _directory(options: argparse.Namespace) -> Path:
    """Return where units belong; UsageError where they would be for root's own manager, whom no mount helper asks."""
    if options.prefix:
        below = places.PACKAGED_USER_UNITS if options.user else places.PACKAGED_UNITS
        return Path(f"{options.root}{options.prefix}/{below}")
    if options.user and not options.root:
        if os.geteuid() == 0:
            raise UsageError(
                "units: --user: root's mounts are served by units of the system: be a user, or give --prefix"
            )
        settings = os.environ.get("XDG_CONFIG_HOME", "")
        home = Path(settings) if settings.startswith("/") else Path.home() / ".config"
        return home / places.OWN_UNITS
    return Path(f"{options.root}{places.USER_UNITS if options.user else places.SYSTEM_UNITS}")


def _verify(options: argparse.Namespace, files: Mapping[str, str]) -> None:
    """PolicyError with what systemd has to say about the units, which is nothing where they are right."""
    with suppress(FileNotFoundError):
        directory = Path(tempfile.mkdtemp(prefix="fuservice-units-"))
        try:
            for name, text in files.items():
                (directory / name).write_text(text, encoding="utf-8")
            command = [
                "systemd-analyze",
                *_whose(options),
                "verify",
                "--man=no",
                *(f"{directory}/{name}" for name in files),
            ]
            # A user's manager has a directory, in which it makes others; to judge a file, any will do.
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                env={**os.environ, "XDG_RUNTIME_DIR": str(directory)},
            )  # fmt: skip
        finally:
            for place, directories, others in os.walk(directory, topdown=False):
                for path in (Path(place, name) for name in (*others, *directories)):
                    (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
            directory.rmdir()
        if done.returncode or done.stderr:
            raise PolicyError(f"units: systemd does not take them, nothing was installed: {done.stderr.strip()}")


def _write(path: Path, text: str) -> None:
    """Put *text* in *path*, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


def _whose(options: argparse.Namespace) -> tuple[str, ...]:
    return ("--user",) if options.user else ()


def _check_manager(options: argparse.Namespace) -> None:
    """PolicyError where a user's units are to be listened on, and the user has no manager to do so."""
    if options.user and not (options.root or options.prefix or _started(options)):
        raise PolicyError("units: --user: no systemd of this user's runs, with its directory in XDG_RUNTIME_DIR: log in, or have "
                          "root say `loginctl enable-linger'")  # fmt: skip


def _started(options: argparse.Namespace) -> bool:
    if options.user:
        return not options.root and systemd.runs_for_user()
    return not options.root and systemd.runs()


def _manager(options: argparse.Namespace, *commands: Sequence[str]) -> None:
    """Have systemd do *commands*, if it runs here and the units are this system's."""
    for command in commands if _started(options) else ():
        done = systemd.systemctl(*_whose(options), "--quiet", *command)
        if done.returncode:
            raise SystemCallError(f"units: systemctl {' '.join(command)}: {done.stderr.strip()}")


def _instances(options: argparse.Namespace, name: str) -> list[str]:
    words = ("list-units", "--plain", "--no-legend", "--state=active", f"fuservice-{name}@*.service")
    return systemd.systemctl(*_whose(options), *words).stdout.splitlines()
