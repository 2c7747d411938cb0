"""The proof of the proof, as root and as a plain user: each wall alone holds what it is said to hold, and is needed."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import TypedDict

import pytest

from fuservice.cage.plan import WALLS
from tests.support.capabilities import REPOSITORY

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
STARTERS = [
    pytest.param((), marks=pytest.mark.needs("root", "fuse"), id="root"),
    pytest.param(NOBODY, marks=pytest.mark.needs("root", "userns", "nobody-python"), id="nobody"),
]

#: Walls that no attempt can prove where a plain user starts the cage, and why.
NOT_FOR_PLAIN = {
    "mount": "a plain user mounts nothing in the machine's namespace anyhow; others stand on this wall",
    "privileges": "in a user namespace without root a set-user-ID program gains nothing anyhow; others stand on this wall",
}


class Found(TypedDict):
    """What the matrix says of one attempt."""

    wrong: list[str]
    proven: list[str]
    note: str
    without: dict[str, str]


@functools.cache
def matrix(before: tuple[str, ...]) -> dict[str, Found]:
    """Run the matrix as whoever *before* makes of us; print it, and return what it found."""
    run_it = f"import sys; sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / 'src')]}; "
    python = [sys.executable, "-c", f"{run_it}from tests.prove.matrix import main; sys.exit(main())"]
    # A pid namespace, so that nobody outlives it: bombs are set off in there.
    apart = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run([*apart, *before, *python], capture_output=True, text=True, check=False, timeout=110, cwd="/")
    assert done.returncode == 0, done.stderr
    *table, found = done.stdout.splitlines()
    print(*table, sep="\n")
    answer: dict[str, Found] = json.loads(found)
    return answer


@pytest.mark.parametrize("before", STARTERS)
def test_each_wall_alone_holds_and_without_any_the_attempt_succeeds(before: tuple[str, ...]) -> None:
    wrong = {name: found["wrong"] for name, found in matrix(before).items() if found["wrong"]}
    assert not wrong
    assert len(matrix(before)) >= 60


@pytest.mark.parametrize("before", STARTERS)
def test_every_wall_is_proven_by_an_attempt(before: tuple[str, ...]) -> None:
    proven = {wall for found in matrix(before).values() for guard in found["proven"] for wall in guard.split("+")}
    assert set(WALLS) - proven == (set(NOT_FOR_PLAIN) if before else set())


@pytest.mark.parametrize("before", STARTERS)
def test_files_stay_shut_without_landlock_and_without_seccomp(before: tuple[str, ...]) -> None:
    opening = {name: found for name, found in matrix(before).items() if found["without"]}
    for name, found in opening.items():
        left = {wall: [g for g in found["proven"] if g != wall] for wall in found["without"]}
        print(
            f"{name}:",
            *(f"without {wall} {found['without'][wall]} ({', '.join(left[wall])})" for wall in left),
            sep="; ",
        )
        assert all(not verdict.startswith("succeeded") for verdict in found["without"].values())
    assert {"read /etc/passwd", "reopen the image for writing by /proc/self/fd", "execute a program"} <= set(opening)
