"""The proof of the proof: every attempt, with each of its walls alone, and without any: ``python -m tests.prove.matrix``.

With one wall (and those that it stands on) the attempt must fail: the wall is proven. Without any it must succeed, or it would
prove nothing. Prints walls by attempts, then as JSON what was found. Run it in a mount namespace that can be lost, as root or
as anybody: attempts that succeed make mounts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from fuservice.cage.plan import WALLS, Profile, plan
from fuservice.prove import probe
from fuservice.prove.attempt import ALWAYS, Attempt
from fuservice.prove.attempts import ATTEMPTS
from fuservice.prove.outside import ground
from fuservice.prove.verdict import Verdict, judge
from tests.prove.cloning import Cloning

if TYPE_CHECKING:
    from fuservice.prove.ground import Ground

ROOT = os.geteuid() == 0
#: A plain user builds every other wall inside the first: a user namespace.
BASE = set() if ROOT else {"user"}
#: What must hold without the one of them, and without the other.
PAIR = ("landlock", "seccomp")


def profile(walls: Collection[str]) -> Profile:
    """Return the profile for a cage of *walls*. The prover looks after nobody, and takes no filter's listener."""
    supervised = "parent" in walls and "seccomp" not in walls
    if ROOT:
        return Profile(supervised=supervised)
    return Profile(uid=os.geteuid(), gid=os.getegid(), user_namespace=True, supervised=supervised)


def run(attempt: Attempt, here: Ground, walls: Collection[str]) -> Verdict:
    """Make *attempt* in a cage of *walls* and what they stand on; the server beside it is in another such cage."""
    start = Cloning(plan(profile(walls), set(WALLS) - set(walls)))
    with start.connect() as other:
        here.server = other.pid
        return judge(attempt, start, here)


class Row:
    """What was found of one attempt. ``wrong`` are sentences; ``proven`` the walls that it has proven."""

    def __init__(self, attempt: Attempt, here: Ground) -> None:
        self.attempt, self.wrong, self.proven = attempt, list[str](), dict[str, str]()
        self.whole, self.free = run(attempt, here, WALLS), run(attempt, here, ())
        if not self.whole.contained:
            self.wrong.append(f"in the whole cage: {self.whole}")
        self.note = self._free(here)
        self.without = {
            wall: run(attempt, here, set(WALLS) - {wall, "parent"}) for wall in PAIR if set(PAIR) <= set(attempt.guards)
        }
        self.wrong += [f"without {wall}: {verdict}" for wall, verdict in self.without.items() if not verdict.contained]

    def _free(self, here: Ground) -> str:
        """Judge it without walls, and then behind each; return what there is to say."""
        guards = self.attempt.guarded_by(root=ROOT)
        if self.free.word == probe.ABSENT:
            return self.free.detail
        if ALWAYS in guards:
            return self._always()
        base = self.free if ROOT else run(self.attempt, here, BASE)
        if probe.SUCCEEDED not in (self.free.word, base.word):
            if not self.attempt.privileged or ROOT:
                self.wrong.append(f"without any wall: {self.free}")
            return f"not for a plain user: {self.free}"
        for guard in guards:
            if guard != "user" and base.word != probe.SUCCEEDED and not ROOT:
                continue  # the user namespace alone has refused it, so it says nothing about what is inside
            verdict = run(self.attempt, here, BASE | set(guard.split("+")))
            self.proven[guard] = str(verdict)
            if not verdict.contained:
                self.wrong.append(f"with {guard} alone: {verdict}")
        return ""

    def found(self) -> dict[str, object]:
        """Return what a test wants to know."""
        without = {wall: str(verdict) for wall, verdict in self.without.items()}
        return {"wrong": self.wrong, "proven": [*self.proven], "note": self.note, "without": without}

    def _always(self) -> str:
        if self.free.word != probe.REFUSED:
            self.wrong.append(f"without any wall: {self.free}, and it should never succeed")
        return f"refused to everybody: {self.free.detail}"


def line(row: Row) -> str:
    """Return the row of the table."""
    held = {wall: "X" if "+" not in guard else "+" for guard in reversed(row.proven) for wall in guard.split("+")}
    marks = "".join(f"{held.get(wall, '.'):^5.5}" for wall in WALLS)
    said = "WRONG " + "; ".join(row.wrong) if row.wrong else row.note
    return f"{row.attempt.name:<47.47}{marks} {said}".rstrip()


def table(rows: Collection[Row]) -> Iterator[str]:
    """Yield walls by attempts."""
    yield "X: this wall alone refuses it; +: these walls together do."
    yield " " * 47 + "".join(f"{wall:^5.4}" for wall in WALLS)
    yield from map(line, rows)


def become_somebody() -> None:
    """Have what a caged process must not have: a terminal, and a supplementary group."""
    os.setsid()
    _, terminal = os.openpty()
    os.open(os.ttyname(terminal), os.O_RDWR)  # the first that the leader of a session opens becomes its terminal
    if ROOT:
        os.setgroups([4242])


def main() -> int:
    """Make every attempt, or those whose names hold one of our words."""
    if child := os.fork():  # only who leads no group of processes can have a session of its own
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    become_somebody()
    words = sys.argv[1:] or [""]
    with ground() as here:
        rows = [Row(a, here) for a in ATTEMPTS if any(word in a.name for word in words)]
    print(*table(rows), sep="\n")
    print(json.dumps({row.attempt.name: row.found() for row in rows}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
