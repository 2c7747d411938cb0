"""libfuse's programs, as they were recorded, against ours: packet for packet, descriptor for descriptor, word for word.

A replay is identical, or it differs in exactly what tests/replay/differences.py states for it. The last test prints how many
of each there are.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.peers.programs import helper_command
from tests.replay.differences import HELPER, ROWS, SERVICE
from tests.replay.outcome import Difference, Outcome, recorded_helper, recorded_service
from tests.replay.play import against_helper, against_service, without_a_server
from tests.replay.stage import stage
from tests.replay.transcripts import Transcript, load, names
from tests.support.capabilities import PROGRAMS, REPOSITORY

IDENTICAL, ON_PURPOSE, OTHER = "identical", "different on purpose", "other"
VERDICTS: dict[str, str] = {}

HELPERS = [name for name in names() if "helper_argv" in load(name)]


def has_a_service(transcript: Transcript) -> bool:
    """Return whether a server on libfuse's library was recorded, up to whatever it said."""
    said = transcript.get("packets", [])
    return "server_argv" in transcript and bool(said) and "srv-" not in transcript["name"]


#: Those that the installed program plays too: each way that it ends.
SOME = ("ll-success", "args-none", "args-type-slash", "args-refused", "ll-opts-many", "doit-flag-bind", "check-present")
SERVICES = [name for name in names() if has_a_service(load(name))]


def param(name: str) -> object:
    """Return *name* with what its recording needs of the machine."""
    transcript = load(name)
    needs = ["root", "fuse"]
    if "/dev/loop0" in transcript.get("helper_argv", []):
        needs.append("loop")
    if transcript.get("uid", 0):
        needs.append("nobody-python")
    if any(post["cmd"].endswith("/utab") for post in transcript.get("post", [])):
        needs.append("mtab")
    return pytest.param(name, marks=pytest.mark.needs(*needs))


def judge(name: str, got: Outcome, recorded: Outcome, difference: Difference | None) -> None:
    """Note the verdict over one half of *name*; fail where it is neither as recorded nor as stated."""
    expected = difference.applied(recorded) if difference else recorded
    verdict = ON_PURPOSE if difference else IDENTICAL
    problems = got.against(expected)
    if difference and not problems and not expected.against(recorded):
        problems = [f"is stated to differ ({difference.row}), and is as recorded"]
    worst = [OTHER, ON_PURPOSE, IDENTICAL]
    VERDICTS[name] = min(OTHER if problems else verdict, VERDICTS.get(name, IDENTICAL), key=worst.index)
    assert not problems, f"{name}:\n  " + "\n  ".join(problems)


@pytest.mark.parametrize("name", [param(name) for name in HELPERS])
def test_our_helper_does_what_libfuses_did(name: str) -> None:
    transcript, difference = load(name), HELPER.get(name)
    waits = difference is not None and not difference.hung_up
    with stage(transcript):
        has_server = bool(transcript.get("packets"))
        got = against_helper(transcript, waits=waits) if has_server else without_a_server(transcript)
    judge(name, got, recorded_helper(transcript), difference)


@pytest.mark.parametrize("name", [param(name) for name in SERVICES])
def test_our_library_does_what_libfuses_did(name: str) -> None:
    transcript = load(name)
    with stage(transcript):
        got = against_service(transcript)
    judge(name, got, recorded_service(transcript), SERVICE.get(name))


@pytest.mark.needs("installed")
@pytest.mark.parametrize("name", [param(name) for name in SOME])
def test_the_installed_program_does_the_same(name: str) -> None:
    transcript, program = load(name), f"{PROGRAMS}/fuservicemount"
    transcript["helper_argv"][0] = program
    transcript["helper_stderr"] = transcript["helper_stderr"].replace("fuservicemount3", program)
    transcript["helper_stdout"] = transcript["helper_stdout"].replace("fuservicemount3", program)
    command = [program, *transcript["helper_argv"][1:]]
    assert command != helper_command(transcript["helper_argv"])
    with stage(transcript):
        if transcript.get("packets"):
            got = against_helper(transcript, command=command)
        else:
            got = without_a_server(transcript, command=command)
    recorded = recorded_helper(transcript)
    difference = HELPER.get(name)
    expected = difference.applied(recorded) if difference else recorded
    stderr = tuple(line.replace("fuservicemount3: ", f"{program}: ") for line in expected.stderr)
    assert (got.exit, got.stderr, got.stdout) == (expected.exit, stderr, expected.stdout)
    assert not [line for line in got.against(expected) if line.startswith(("step", "mounts", "refused"))]


def test_every_difference_has_a_row_and_a_recording() -> None:
    stated = {**HELPER, **SERVICE}
    assert {difference.row for difference in stated.values()} == set(ROWS)
    assert set(HELPER) <= set(HELPERS) and set(SERVICE) <= set(SERVICES)


def test_each_row_is_in_the_specification() -> None:
    """A difference that is used, and one that is specified, are the same thing."""
    table = (REPOSITORY / "docs/protocol.md").read_text().partition("## Where we differ on purpose")[2]
    specified = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")} - {"row"}
    used = {difference.row for difference in (*HELPER.values(), *SERVICE.values())}
    assert used <= set(ROWS) <= specified


def test_nothing_else_differs(capsys: pytest.CaptureFixture[str]) -> None:
    """The last in this file: it counts what the others found."""
    count = Counter(VERDICTS.values())
    replayed = (
        ""
        if set(VERDICTS) == set(names())
        else f" ({len(names()) - len(VERDICTS)} of {len(names())} were not replayed)"
    )
    with capsys.disabled():
        print(
            f"\ntranscripts: {count[IDENTICAL]} identical, {count[ON_PURPOSE]} different on purpose, "
            f"{count[OTHER]} other{replayed}"
        )
    assert not count[OTHER]
