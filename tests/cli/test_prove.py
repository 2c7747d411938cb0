"""``fuservice prove`` on every way of starting, as root and as a plain user; and that it would say so if a cage did not hold."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.cage.plan import WALLS, Profile, plan
from fuservice.cli import prove
from fuservice.cli.main import main
from fuservice.drivers import catalog
from tests.prove.cloning import Cloning
from tests.support.capabilities import PROGRAMS

if TYPE_CHECKING:
    from fuservice.prove.starts import Start

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
STARTERS = [
    pytest.param((), marks=pytest.mark.needs("root", "fuse", "installed"), id="root"),
    pytest.param(NOBODY, marks=pytest.mark.needs("root", "userns", "nobody-python", "installed"), id="nobody"),
]
MOST_CALLS = 40


def typed(*words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run ``fuservice prove`` with these words."""
    command: list[str | Path] = [*before, PROGRAMS / "fuservice", "prove", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd="/")


@pytest.mark.parametrize("before", STARTERS)
@pytest.mark.parametrize("start", list(prove.STARTS))
def test_no_attempt_gets_out(start: str, before: tuple[str, ...]) -> None:
    done = typed(f"--{start}", "--json", "ext4", before=before)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["type"], found["start"]) == ("ext4", start)
    outcomes = [attempt["outcome"] for attempt in found["attempts"]]
    print(f"{start}: {len(outcomes)} attempts:", *(f"{outcomes.count(word)} {word}" for word in sorted(set(outcomes))))
    assert len(outcomes) >= 60
    assert set(outcomes) <= {"killed", "refused", "bounded", "absent"} and outcomes.count("absent") < 15


@pytest.mark.needs("root", "fuse", "installed")
def test_the_table_names_the_system_call() -> None:
    done = typed("memtree")
    assert done.returncode == 0
    first, *lines, last = done.stdout.splitlines()
    assert first == "memtree, --listen:"
    assert any(line.split() == ["read", "/etc/passwd", "killed", "by", "seccomp", "(openat)"] for line in lines)
    assert last.startswith(f"memtree: {len(lines)} attempts, 0 not contained; ")


@pytest.mark.needs("root", "fuse")
def test_a_cage_that_does_not_hold_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(*walls: str) -> Start:
        return Cloning(plan(Profile(), walls))

    monkeypatch.setattr(prove, "STARTS", {"listen": ("", lambda _name: without("limits", "session"))})
    assert main(["prove", "memtree"]) == 1
    said = capsys.readouterr()
    assert said.err == "fuservice: prove: the cage does not hold: take memory without end\n"
    assert "  ! take memory without end                         succeeded" in said.out


@pytest.mark.needs("root", "fuse")
def test_a_cage_that_cannot_be_entered_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cage = plan(Profile(binds=["/no/such/directory"]))
    monkeypatch.setattr(prove, "STARTS", {"listen": ("", lambda _name: Cloning(cage))})
    assert main(["prove", "memtree"]) == 1
    assert "a root that shows only /no/such/directory" in capsys.readouterr().err


def test_the_list_says_what_guards_each_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--list", "--json"]) == 0
    attempts = json.loads(capsys.readouterr().out)
    assert len({attempt["name"] for attempt in attempts}) == len(attempts) >= 60
    walls = {wall for attempt in attempts for guard in attempt["guards"] for wall in guard.split("+")}
    assert walls - {"always"} == set(WALLS) or walls - {"always"} < set(WALLS)
    assert main(["prove", "--list"]) == 0
    assert "files: read /etc/passwd: who the machine's users are (root, landlock, seccomp)\n" in capsys.readouterr().out


def listener(*words: str | Path, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start ``fuservice listen memtree --prove-first`` with more words; it does not outlive us."""
    listen = [PROGRAMS / "fuservice", "listen", "memtree", "--prove-first", *words]
    command: list[str | Path] = ["setpriv", "--pdeathsig=KILL", "--", *before, *listen]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")


@pytest.mark.needs("root", "fuse", "installed")
def test_a_listener_proves_first_and_then_listens(tmp_path: Path) -> None:
    with listener(f"--socket-dir={tmp_path}/sockets") as program:
        assert program.stdout is not None and program.stderr is not None
        assert program.stdout.readline() == f"listening on {tmp_path}/sockets/memtree\n"
        program.terminate()
        said = program.stderr.read()
        assert program.wait(20) == 0
    assert "attempts, 0 not contained" in said


@pytest.mark.needs("root", "fuse", "installed")
def test_a_listener_whose_cage_cannot_be_proven_does_not_listen(tmp_path: Path) -> None:
    no_files = ("prlimit", "--fsize=0")  # so that there is nothing to aim at
    with listener(f"--socket-dir={tmp_path}/sockets", before=no_files) as program:
        said, complaints = program.communicate(timeout=60)
    assert (program.returncode, said) == (1, "") and not (tmp_path / "sockets").exists()
    assert complaints.splitlines()[-1] == (
        "fuservice: listen: --prove-first: the cage does not hold, or could not be tried: see above"
    )


@pytest.mark.needs("installed")
def test_a_weaker_cage_is_not_proven(tmp_path: Path) -> None:
    with listener(f"--socket-dir={tmp_path}/sockets", "--cage=-seccomp") as program:
        _, complaints = program.communicate(timeout=60)
    assert program.returncode == 64
    assert complaints.splitlines()[-1] == "fuservice: listen: --prove-first is for the whole cage: leave out --cage"


def test_no_such_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "nosuch"]) == 64
    assert capsys.readouterr().err.startswith("fuservice: no driver for type `nosuch'")


@pytest.mark.parametrize("name", list(catalog.DRIVERS))
def test_few_system_calls_are_left(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--dry-run", name]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("seccomp:")]
    calls = line.rpartition(": ")[2].split(", ")
    print(f"{name}: {len(calls)} system calls: {' '.join(calls)}")
    assert "readv" in calls and len(set(calls)) == len(calls) <= MOST_CALLS
