"""The units as text: what the profile says is in them, what systemd thinks of them, and that each line says why."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest

from fuservice.cage import plan
from fuservice.cage.profile import CONVERSE, SERVE, THREADS, Profile
from fuservice.units import inside, places
from fuservice.units.root import NAME, root
from fuservice.units.service import SUPERVISOR, WALLS, service
from fuservice.units.socket import socket, user_socket
from fuservice.units.user import user_service
from tests.units import libfuse

PROFILE = Profile(descriptors=77, memory=123 << 20, cpu_seconds=99, syscalls=("pread64",), threads=2, supervised=True)
PROGRAM = places.Program("/usr/bin/python3", ["/opt/there"])
VERSIONS = (252, 257)

MOST_EXPOSURE = 1  # tenths


def directives(text: str) -> list[tuple[str, str]]:
    """Return the lines of *text* that are directives, as pairs."""
    pairs = (line.partition("=") for line in text.splitlines() if line[:1] not in ("#", "[", ""))
    return [(name, value) for name, _, value in pairs]


def made(version: int = 252, profile: Profile = PROFILE) -> dict[str, list[str]]:
    """Return directive → values of a service unit."""
    found: dict[str, list[str]] = {}
    for name, value in directives(service("ext4", profile, PROGRAM, version)):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sentence_stands_above_each_directive(version: int) -> None:
    systems = (service("ext4", PROFILE, PROGRAM, version), socket("ext4", "/run/x", 0o220, version), root(version))
    for text in (*systems, user_service("ext4", PROFILE, PROGRAM, version), user_socket("ext4", version)):
        lines = text.splitlines()
        for above, line in itertools.pairwise(lines):
            if line[:1] not in ("#", "[", ""):
                assert re.match(r"# .*(\.| …)$", above), f"{line}: {above}"
            assert len(line) <= 400


def test_budgets_are_those_of_the_profile() -> None:
    """Whatever the cage limits, the unit limits too, to the same number."""
    unit = made()
    limits = [one for one in inside.cage(PROFILE) if one.wall == "limits"]
    for one in limits:
        if match := re.fullmatch(r"limit (\w+) to (\d+)", one.describe()):
            name, value = match.groups()
            if name in ("NICE", "RTPRIO"):
                assert unit["RestrictRealtime"] == ["yes"]
            elif (
                name == "NPROC"
            ):  # what is within has no right to one more: its supervisor and its threads are there by then
                assert unit["LimitNPROC"] == unit["TasksMax"] == ["4"] and value == "0"
            else:
                assert unit[f"Limit{name}"] == [value], name
    assert unit["LimitNOFILE"] == ["77"] and unit["LimitAS"] == [str(123 << 20)]
    assert unit["MemoryMax"] == [str((123 << 20) + SUPERVISOR)]
    assert unit["OOMScoreAdjust"] == ["500"] and any("at least 500" in one.describe() for one in limits)
    assert unit["UMask"] == ["0077"] and any("umask 077" in one.describe() for one in limits)
    assert "LimitCPU" not in made(profile=Profile())


def test_the_filter_lets_through_what_the_profile_needs() -> None:
    assert set(made()["SystemCallFilter"][-1].split()) == {*SERVE, *CONVERSE, *THREADS, "pread64", "pipe2"}


def test_each_wall_of_the_cage_is_built_by_systemd_or_within() -> None:
    within = {one.wall for one in inside.cage(PROFILE) if not isinstance(one, inside.Found)}
    by_systemd = {wall for wall in WALLS if any(not one.since for one in WALLS[wall])}
    assert set(inside.SYSTEMD) == set(plan.WALLS) - within
    assert set(inside.SYSTEMD) <= by_systemd
    assert {"landlock", "seccomp", "limits", "descriptors", "dumpable", "privileges", "session", "parent"} <= within


def test_what_is_found_is_checked_first() -> None:
    cage = inside.cage(PROFILE)
    assert [one.wall for one in cage[: len(inside.FOUND)]] == [one.wall for one in inside.FOUND]
    assert {one.wall for one in inside.FOUND} <= set(plan.WALLS)


def test_a_server_outside_of_a_unit_finds_no_walls() -> None:
    with pytest.raises(OSError, match="systemd has not built what the unit says"):
        plan.enter(inside.FOUND)


@pytest.mark.parametrize(("directory", "homes"), [("/opt/there", "yes"), ("/home/there", "tmpfs"), ("/root", "tmpfs")])
def test_a_program_in_a_home_is_bound_into_an_empty_one(directory: str, homes: str) -> None:
    words = places.Program("/usr/bin/python3", [directory]).words()
    assert words["homes"] == homes and directory in words["readable"].split()
    text = service("ext4", PROFILE, places.Program("/usr/bin/python3", [directory]), 252)
    assert ("TemporaryFileSystem=/home:ro,mode=0755 /root:ro,mode=0755 " in text) == (homes == "tmpfs")


def test_newer_versions_get_what_older_do_not_know() -> None:
    assert "PrivatePIDs" not in made(252) and made(257)["PrivatePIDs"] == ["yes"]
    old, new = (dict(directives(socket("ext4", "/run/x", 0o220, version))) for version in VERSIONS)
    assert old["TriggerLimitIntervalSec"] == new["TriggerLimitIntervalSec"] == "0"
    assert "PollLimitBurst" not in old and "PollLimitBurst" in new
    assert int(old["MaxConnections"]) < int(new["MaxConnections"])  # where each user has a bound


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    """Give the units of a type as files."""
    texts = {
        "fuservice-ext4@.service": service("ext4", PROFILE, PROGRAM, 252),
        "fuservice-ext4.socket": socket("ext4", places.SOCKETS, places.SOCKET_MODE, 252),
        NAME: root(252),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [tmp_path / name for name in texts]


@pytest.mark.needs("systemd")
def test_systemd_has_nothing_to_say_about_them(written: list[Path]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *written], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def exposure(path: Path, threshold: int = 100) -> str:
    """Return the verdict of systemd-analyze(1) on the unit at *path*, at most *threshold* tenths."""
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={threshold}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, [line for line in done.stdout.splitlines() if "✗" in line]
    return done.stdout.splitlines()[-1].partition(": ")[2]


@pytest.mark.needs("systemd")
@pytest.mark.parametrize("special", [True, False], ids=["as it is", "as if for late services, judged by more"])
def test_exposure(written: list[Path], special: bool) -> None:  # noqa: FBT001
    """What is started early is judged by fewer settings: so without that word too."""
    path = written[0]
    if not special:
        path.write_text(path.read_text().replace("DefaultDependencies=no\n", ""))
    (theirs := path.with_name("theirs@.service")).write_text(libfuse.unit("/usr/bin/true"))
    print(f"ours: {exposure(path, MOST_EXPOSURE)}; libfuse's example: {exposure(theirs)}")
