"""``fuservice prove [TYPE…]``: start the cage with a probe in the place of the driver, and try from inside to get out."""

from __future__ import annotations

import json
import os

from fuservice.drivers import catalog
from fuservice.errors import FuserviceError, PolicyError, SystemCallError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from fuservice.prove.starts import Start
    from fuservice.prove.verdict import Verdict

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("prove", help="try to get out of the cage, from inside", description=__doc__)
    command.add_argument("types", nargs="*", metavar="TYPE",
                         help=f"one of {', '.join(catalog.DRIVERS)} (one for each driver)")  # fmt: skip
    how = command.add_mutually_exclusive_group()
    for name, (words, _) in STARTS.items():
        how.add_argument(f"--{name}", dest="start", action="store_const", const=name, default="listen", help=words)
    how.add_argument(
        "--unit", metavar="UNIT", help="start by systemd, as this template unit says: fuservice-TYPE@.service"
    )
    command.add_argument("--list", action="store_true", help="print what would be tried, what for, and what guards it")
    command.add_argument("--json", action="store_true", help="print for programs")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prove the cages of the types. FuserviceError where an attempt was not contained, or could not be made."""
    types = options.types or _one_for_each_driver()
    for name in types:
        catalog.where(name)
    if options.list:
        _list(as_json=options.json)
        return
    if options.unit and options.types:
        raise UsageError("prove: a unit knows its type: leave out TYPE")
    if options.unit:
        escaped = _prove(options.unit, "unit", lambda: _unit(options.unit), as_json=options.json)
    else:
        escaped = [escape for name in types for escape in prove(name, options.start, as_json=options.json)]
    if escaped:
        raise FuserviceError(f"prove: the cage does not hold: {', '.join(escaped)}")


def prove(name: str, how: str, *, as_json: bool = False) -> list[str]:
    """Prove the cage of type *name*, started as *how* says; print it; return the names of what was not contained."""
    return _prove(name, how, lambda: STARTS[how][1](name), as_json=as_json)


def _prove(name: str, how: str, begin: Callable[[], Start], *, as_json: bool) -> list[str]:
    from fuservice.prove.proof import prove as attempts  # forty modules that no other command needs

    try:
        with begin() as start:
            verdicts = [*attempts(start)]
    except OSError as error:
        raise SystemCallError(f"prove: {error}") from None
    _print_json(name, how, verdicts) if as_json else _print(name, how, verdicts)
    return [verdict.attempt.name for verdict in verdicts if not verdict.contained]


def _one_for_each_driver() -> list[str]:
    return [*{where: name for name, where in catalog.DRIVERS.items()}.values()]  # of ext2, ext3, ext4 the last


def _listen(name: str) -> Start:
    from fuservice.prove import supervised

    return supervised.Listening(name, supervised.command("fuservice.cli.probe"))


def _serve(name: str) -> Start:
    from fuservice.cli.probe import load
    from fuservice.prove.supervised import Single

    return Single(name, load(name))


def _direct(name: str) -> Start:
    from fuservice.cli.probe import load
    from fuservice.prove.supervised import Directly

    return Directly(name, load(name))


def _unit(name: str) -> Start:
    from fuservice.cli import runtime, systemd
    from fuservice.prove.unit import Unit, UserUnit

    if os.geteuid() == 0:
        return Unit(name)
    if not systemd.runs_for_user():
        raise PolicyError("prove: --unit: no systemd of this user's runs here, and the system's is root's")
    return UserUnit(name, runtime.runtime_directory())


#: Option → what it says of itself, and what starts probes in this way.
STARTS: Final[Mapping[str, tuple[str, Callable[[str], Start]]]] = {
    "listen": ("start as a listener does, through its warm process (this is how it is without any of these)", _listen),
    "serve": ("start as for systemd and inetd: one supervisor for each server", _serve),
    "direct": ("start as fuservicemount --direct does", _direct),
}


def _list(*, as_json: bool) -> None:
    from fuservice.prove.attempts import ATTEMPTS

    root = os.geteuid() == 0
    if as_json:
        print(json.dumps([{"subject": a.subject, "name": a.name, "gain": a.gain, "guards": [*a.guarded_by(root=root)]}
                          for a in ATTEMPTS], indent=1))  # fmt: skip
        return
    for attempt in ATTEMPTS:
        print(f"{attempt.subject}: {attempt.name}: {attempt.gain} ({', '.join(attempt.guarded_by(root=root))})")


def _print(name: str, how: str, verdicts: Sequence[Verdict]) -> None:
    print(f"{name}, --{how}:")
    for verdict in verdicts:
        print(f"  {'  ' if verdict.contained else '! '}{verdict.attempt.name:<47} {verdict}")
    escaped = sum(not verdict.contained for verdict in verdicts)
    absent = sum(verdict.word == "absent" for verdict in verdicts)
    print(f"{name}: {len(verdicts)} attempts, {escaped} not contained; {absent} had nothing to aim at on this machine")


def _print_json(name: str, how: str, verdicts: Sequence[Verdict]) -> None:
    root = os.geteuid() == 0
    attempts = [
        {
            "subject": verdict.attempt.subject,
            "name": verdict.attempt.name,
            "gain": verdict.attempt.gain,
            "guards": [*verdict.attempt.guarded_by(root=root)],
            "outcome": verdict.word,
            "detail": verdict.detail,
            "contained": verdict.contained,
        }
        for verdict in verdicts
    ]
    print(json.dumps({"type": name, "start": how, "attempts": attempts}))
