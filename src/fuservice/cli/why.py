"""``fuservice why``: in one sentence, why something was not mounted or is mounted no more, and what to do. Receipts tell."""

from __future__ import annotations

import json
import time

from fuservice.cli import mine
from fuservice.errors import LONGEST_SENTENCE, UsageError, printable
from fuservice.launch import receipts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from fuservice.launch.receipts import Facts

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("why", help="say why a mount failed or ended, and what to do", description=__doc__)
    command.add_argument(
        "word", nargs="?", metavar="MOUNTPOINT", help="or source, or number (default: the last failure)"
    )
    command.add_argument("--json", action="store_true", help="print the whole receipt")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the sentence. UsageError where no receipt is about what was typed."""
    known = receipts.read_all()
    facts = _last_failure(known) if options.word is None else _about(options.word, known)
    if options.json:
        print(json.dumps(facts, indent=2))
    elif facts is None:
        print("nothing has gone wrong: no mount of yours was refused, and none died")
    else:
        print(printable(sentence(facts), 2 * LONGEST_SENTENCE))


def _last_failure(known: dict[int, Facts]) -> Facts | None:
    """Return the receipt of what failed or died last; a mount that was unmounted, or goes on, is neither."""
    failed = [facts for facts in known.values() if facts.get("ended") is not None and not _is_clean(facts)]
    return max(failed, key=_ended, default=None)


def _about(word: str, known: dict[int, Facts]) -> Facts:
    facts = mine.about(word, known)
    if facts is None:
        raise UsageError(
            f"why: {word}: no receipt is about it: receipts are kept of what `fuservice mount' was asked for"
        )
    return facts


def _is_clean(facts: Facts) -> bool:
    return str(facts.get("reason")).startswith("unmounted") and "exit code" not in facts


def _ended(facts: Facts) -> float:
    ended = facts.get("ended")
    return float(ended) if isinstance(ended, int | float) else 0.0


def sentence(facts: Facts) -> str:
    """Return what came of the mount that *facts* are about, and the way out."""
    point, source, number = facts.get("mount point"), facts.get("path"), facts.get("id")
    mounted = f"mount {number} of {source} on {point}"
    again = f"mount it again: fuservice mount {source}"
    if "exit code" in facts:
        return f"mounting {source} failed {_ago(facts)}: {facts.get('reason')}"
    if _is_clean(facts):
        return f"{mounted}: was {facts.get('reason')} {_ago(facts)}"
    if facts.get("ended") is not None:
        return f"{mounted}: ended {_ago(facts)}: {facts.get('reason')}; {again}"
    if facts.get("boot") != receipts.boot():
        return f"{mounted}: the machine was started anew since; {again}"
    if mine.is_there(facts):
        return f"{mounted}: nothing has gone wrong: it is mounted"
    return (
        f"{mounted}: is gone, and nobody has recorded why: somebody has unmounted it, or its namespace ended; {again}"
    )


def _ago(facts: Facts) -> str:
    """Return how long ago it ended, in the largest unit of which there is one at least."""
    seconds = max(0, int(time.time() - _ended(facts)))
    for length, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= length:
            number = seconds // length
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
