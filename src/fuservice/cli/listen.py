"""``fuservice listen TYPE…``: listen on a socket for each type, start a caged server for each connection."""

from __future__ import annotations

import os
import sys

from fuservice.cli import contained
from fuservice.cli.afterwards import tidy
from fuservice.drivers import catalog
from fuservice.errors import EXIT_OK, PolicyError, SystemCallError, UsageError
from fuservice.launch import state, warm
from fuservice.launch.activator import Activator
from fuservice.launch.groups import Groups, delegated
from fuservice.launch.places import check_name, inherited_sockets
from fuservice.launch.slots import PER_UID
from fuservice.linux.notify import Manager
from fuservice.proto.layouts import SOCKET_DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("listen", help="serve types: one caged server for each mount", description=__doc__)
    command.add_argument("types", nargs="*", metavar="TYPE", help=f"one of {', '.join(catalog.DRIVERS)}")
    command.add_argument("--socket-dir", metavar="DIR",
                         help=f"where the sockets are ({SOCKET_DIRECTORY}, or filesystems in XDG_RUNTIME_DIR)")  # fmt: skip
    command.add_argument("--socket-mode", default=0o220, type=_mode, metavar="MODE",
                         help="permission bits of the sockets, octal (220)")  # fmt: skip
    command.add_argument("--per-uid", default=PER_UID, type=_count, metavar="N",
                         help="servers that one user may have at once (%(default)s)")  # fmt: skip
    command.add_argument("--fresh-after", default=1000, type=_count, metavar="N",
                         help="servers after which the process that they are copies of is replaced (%(default)s)")  # fmt: skip
    contained.add_options(command)
    command.add_argument("--prove-first", action="store_true",
                         help="listen only if nothing gets out of the cage: see fuservice-prove(8)")  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="print the cage that servers would enter, and end")
    command.set_defaults(run=run)


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError(text)
    return mode


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


_mode.__name__ = "octal mode"  # argparse says: invalid octal mode value: '999'
_count.__name__ = "count"


def run(options: argparse.Namespace) -> None:
    """Listen until SIGTERM or SIGINT. FuserviceError where that is not possible."""
    for name in options.types:
        check_name(name)
    if options.dry_run:
        _show(options.types, contained.walls(options))
        return
    inherited = inherited_sockets(os.environ, catalog.DRIVERS)
    manager = Manager(os.environ)
    types = [*dict.fromkeys([*options.types, *inherited])]
    if not types:
        raise UsageError(f"listen: which types? There are {', '.join(catalog.DRIVERS)}")
    without = contained.prepare(options)
    if options.prove_first:
        _prove(types, without)
    activator = Activator(
        _programs(types, without, options.fresh_after), _directory(options.socket_dir), log=contained.Log(),
        states=state.States(state.directory()), manager=manager, facts={"cage": contained.cage_word(without)},
        mode=options.socket_mode, per_uid=options.per_uid, inherited=inherited, groups=_groups(), tidy=tidy,
    )  # fmt: skip
    activator.run(_ready)


def _groups() -> Groups | None:
    place = delegated()
    try:
        return None if place is None else Groups(place)
    except OSError as error:
        sentence = f"listen: {error.filename}: {error.strerror}: the control group was delegated, and cannot be divided"
        raise SystemCallError(sentence) from None


def _programs(types: Sequence[str], without: Sequence[str], most: int) -> Mapping[str, Sequence[str]]:
    """Return type → command of its warm process: one for all types of a driver. UsageError where there is no driver."""
    first: dict[tuple[str, str], str] = {}
    for name in types:
        first.setdefault(catalog.where(name), name)
    program = [sys.executable, "-I", "-m", "fuservice.cli.warm"]
    return {name: [*program, *warm.arguments(first[catalog.where(name)], without, most)] for name in types}


def _prove(types: Sequence[str], without: Sequence[str]) -> None:
    """Prove the cage of each driver, in a process of its own: what proves need not stay in a listener's memory."""
    if without:
        raise UsageError("listen: --prove-first is for the whole cage: leave out --cage")
    words = ["prove", "--listen", *dict.fromkeys({catalog.where(name): name for name in types}.values())]
    code = "import sys; from fuservice.cli.main import main; sys.exit(main(sys.argv[1:]))"
    program = [sys.executable, "-I", "-c", code, *words]
    proof = os.posix_spawn(program[0], program, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    if os.waitstatus_to_exitcode(os.waitpid(proof, 0)[1]) != EXIT_OK:
        raise PolicyError("listen: --prove-first: the cage does not hold, or could not be tried: see above")


def _show(types: Sequence[str], without: Sequence[str]) -> None:
    from fuservice.cli.warm import load  # a listener imports no driver, nor what drivers are made of
    from fuservice.launch.child import Starter

    for name in types:
        print(*(operation.describe() for operation in load(name).cage(Starter(), without)), sep="\n")


def _directory(typed: str | None) -> str:
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if typed is None and os.geteuid() != 0 and not own:
        raise PolicyError("listen: where shall the sockets be? There is no XDG_RUNTIME_DIR; say --socket-dir=DIR")
    return os.path.abspath(typed or (SOCKET_DIRECTORY if os.geteuid() == 0 else f"{own}/filesystems"))  # noqa: PTH100


def _ready(paths: list[str]) -> None:
    for path in paths:
        print(f"listening on {path}", flush=True)
