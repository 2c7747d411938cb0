"""Who else lives in a mount namespace, as root and as a plain user."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.capabilities import PROGRAMS

pytestmark = pytest.mark.needs("root")

SRC = Path(__file__).parents[2] / "src"
#: What a process in the namespace finds: is it kept, and for each name that does not count, the name of the witness.
LOOK = """
import json, sys
sys.path.append(sys.argv[1])
from fuservice.launch import company
found = []
kept = company.is_kept()
for name in sys.argv[2:]:
    witness = company.witness({name})
    if witness is None:
        found.append(None)
    else:
        with witness, open(f"/proc/self/fdinfo/{witness.fileno()}") as file:
            pid = next(line.split()[1] for line in file if line.startswith("Pid:"))
        found.append(open(f"/proc/{pid}/comm").read().strip())
print(json.dumps([kept, found]))
"""
#: A machine of its own, as far as this goes: its process 1 is in its first mount namespace.
MACHINE = ("unshare", "-m", "--propagation", "private", "-p", "-f", "--mount-proc")
SHELL = ("sh", "-c", '"$@"; exit $?', "sh")  # which stays, and waits


def look(*before: str, unlike: tuple[str, ...] = ("nobody",), as_nobody: bool = False) -> list[object]:
    """Return what a process finds that is started by the words *before*: is its namespace kept, and who is a witness."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if as_nobody else []
    command = [*before, *nobody, "/usr/bin/python3", "-ISc", LOOK, str(SRC), *unlike]
    if as_nobody and subprocess.run([*nobody, "test", "-x", PROGRAMS], check=False).returncode:
        pytest.skip("another user cannot reach this checkout")
    found: list[object] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


@pytest.mark.parametrize("as_nobody", [False, True], ids=["root", "nobody"])
def test_a_namespace_with_process_1_is_kept(as_nobody: bool) -> None:  # noqa: FBT001
    assert look(*MACHINE, *SHELL, as_nobody=as_nobody) == [True, ["sh"]]


@pytest.mark.parametrize("as_nobody", [False, True], ids=["root", "nobody"])
def test_nobody_else_is_in_a_new_one(as_nobody: bool) -> None:  # noqa: FBT001
    assert look("unshare", "-m", as_nobody=as_nobody) == [False, [None]]


@pytest.mark.parametrize("as_nobody", [False, True], ids=["root", "nobody"])
def test_the_starter_is_a_witness_whoever_he_is(as_nobody: bool) -> None:  # noqa: FBT001
    assert look("unshare", "-m", *SHELL, as_nobody=as_nobody) == [False, ["sh"]]


def test_those_of_our_own_kind_do_not_count() -> None:
    assert look("unshare", "-m", *SHELL, unlike=("sh", "bash")) == [False, [None, "sh"]]
    # But they do if they are another user's.
    assert look("unshare", "-m", *SHELL, unlike=("sh",), as_nobody=True) == [False, ["sh"]]


def test_a_namespace_that_is_a_file_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "namespaces"
    place.mkdir()
    # Linux 6.18 takes a younger namespace for an older one now and then, and refuses it a name (EINVAL).
    script = f"""
        mount --bind {place} {place} && mount --make-private {place} && touch {place}/one
        i=0; until unshare --mount={place}/one true || [ $i = 50 ]; do i=$((i + 1)); done
        nsenter --mount={place}/one "$@"; code=$?
        umount {place}/one; umount {place}; exit $code
    """
    assert look(*MACHINE, "sh", "-c", script, "sh") == [True, [None]]
