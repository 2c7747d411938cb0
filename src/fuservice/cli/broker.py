"""``fuserviced``, or ``fuservice broker``: mounts for users who may not, from descriptors; started by root or by systemd."""

from __future__ import annotations

import os
import sys
from functools import partial

from fuservice.broker import policy, walls, wire
from fuservice.broker.daemon import Daemon
from fuservice.cage.plan import enter
from fuservice.cli.contained import Log
from fuservice.errors import EXIT_OK, LONGEST_SENTENCE, FuserviceError, SystemCallError, printable
from fuservice.launch.places import clear_stale, inherited_sockets, prepare_directory
from fuservice.linux import capabilities, prctl
from fuservice.linux.listener import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MODE = 0o666  # who may have something mounted is the policy's to say


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "broker", help="mount for users who may not", description=__doc__, epilog="See fuserviced(8)."
    )
    _add_options(command)
    command.set_defaults(run=run)


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--socket", default=wire.SOCKET, metavar="PATH", help="where to listen (%(default)s)")
    command.add_argument("--dry-run", action="store_true", help="say which rights would be given up, and end")


def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. FuserviceError where that is not possible."""
    effective, _, _ = capabilities.capabilities()
    if options.dry_run:
        steps = walls.listener(effective | 1 << walls.CAP_SYS_ADMIN, root=True)
        print(*(operation.describe() for operation in (*steps, *walls.caller())), sep="\n")
        return
    log = Log()
    steps = walls.listener(effective, root=os.geteuid() == 0)
    inherited = [*inherited_sockets(os.environ, ()).values()]
    stamp = _stamp()
    rules = policy.load()  # before the walls: names are asked for, and the file may be root's alone
    log(
        3 if rules.error else 6,
        f"{rules.error}: refuses everybody" if rules.error else f"policy: {len(rules.rules)} rules",
    )
    listener = inherited[0] if inherited else _listen(options.socket)
    os.environ.clear()
    os.chdir("/")
    prctl.set_name("fuserviced")
    stale = partial(policy.has_changed, stamp) if inherited else lambda: False  # who started us starts us anew
    daemon = Daemon(listener, rules, partial(_log, log), stale)
    try:
        enter(steps)
    except OSError as error:
        raise SystemCallError(
            f"the broker cannot give up its rights: {error}: {'; '.join(getattr(error, '__notes__', ()))}"
        ) from None
    if not inherited:
        print(f"listening on {options.socket}", flush=True)
    daemon.run()


def _log(log: Log, level: int, line: str) -> None:
    log(level, printable(line, LONGEST_SENTENCE))


def _stamp() -> tuple[int, int, int] | None:
    try:
        return policy.stamp()
    except OSError:
        return None  # then it cannot be read either, and load() says so


def _listen(path: str) -> Listener:
    os.umask(0o022)  # the directory is for everybody to find the socket in
    prepare_directory(os.path.dirname(path) or ".")  # noqa: PTH120
    clear_stale(path)
    try:
        return Listener(path, MODE)
    except OSError as error:
        raise SystemCallError(f"{path}: cannot listen there: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Be ``fuserviced``; return the exit code."""
    from fuservice.cli.main import Parser

    words = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="fuserviced", description=__doc__, epilog="See fuserviced(8).")
    _add_options(parser)
    try:
        run(parser.parse_args(words))
    except FuserviceError as error:
        print(f"fuserviced: {printable(str(error), LONGEST_SENTENCE)}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
