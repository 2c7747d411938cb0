"""Units for a user's own manager: what surrounds a server that builds its whole cage itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fuservice.cage import plan
from fuservice.units import inside, places
from fuservice.units.service import SUPERVISOR
from fuservice.units.socket import user_socket
from fuservice.units.user import WALLS, user_service
from tests.units.test_service import PROFILE, PROGRAM, VERSIONS, directives

#: The supervisor is what is judged, without a filter of system calls; the server's cage is not systemd's to see.
MOST_EXPOSURE = 63  # tenths


def text(version: int = 252) -> str:
    """Return a service unit."""
    return user_service("ext4", PROFILE, PROGRAM, version)


def test_the_server_is_one_that_builds_its_whole_cage() -> None:
    unit = dict(directives(text()))
    assert unit["ExecStart"] == "/usr/bin/python3 -I -m fuservice.cli.main serve ext4"
    assert set(WALLS) <= set(plan.WALLS) and set(WALLS) & set(inside.SYSTEMD)


def test_nothing_keeps_the_server_from_building_it_or_answers_in_its_place() -> None:
    """A filter of systemd's that refuses comes before the cage's, which tells (seccomp(2): the least permissive counts)."""
    refusing = {
        "SystemCallFilter", "RestrictNamespaces", "RestrictAddressFamilies", "MemoryDenyWriteExecute", "RestrictRealtime",
        "RestrictSUIDSGID", "LockPersonality", "PrivateDevices", "ProtectHostname", "ProtectClock", "ProtectKernelLogs",
        "ProtectKernelModules", "ProtectKernelTunables", "LimitNPROC", "LimitFSIZE",
    }  # fmt: skip
    for version in VERSIONS:
        assert not refusing & {name for name, _ in directives(text(version))}


def test_budgets_are_those_of_the_profile() -> None:
    unit = dict(directives(text()))
    assert (unit["LimitNOFILE"], unit["LimitAS"], unit["LimitCPU"]) == ("77", str(123 << 20), "99")
    assert (unit["MemoryMax"], unit["TasksMax"]) == (str((123 << 20) + SUPERVISOR), "4")


def test_the_socket_is_the_users_alone() -> None:
    unit = dict(directives(user_socket("ext4", 257)))
    assert unit["ListenSequentialPacket"] == "%t/filesystems/ext4"
    assert (unit["SocketMode"], unit["DirectoryMode"]) == ("0600", "0700")


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    """Give the units of a type as files."""
    texts = {"fuservice-ext4@.service": text(), "fuservice-ext4.socket": user_socket("ext4", 252)}
    for name, unit in texts.items():
        (tmp_path / name).write_text(unit)
    return [tmp_path / name for name in texts]


def analyze(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Have the program for a user's manager, with its directory at *place*, judge a unit."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(place)}
    command = ["systemd-analyze", "--user", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.needs("systemd")
def test_systemd_has_nothing_to_say_about_them(written: list[Path], tmp_path: Path) -> None:
    done = analyze(tmp_path, "verify", *map(str, written))
    assert done.returncode == 0 and done.stdout == done.stderr == ""


@pytest.mark.needs("systemd")
def test_exposure(written: list[Path], tmp_path: Path) -> None:
    done = analyze(
        tmp_path, "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(written[0])
    )
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout


def test_places_are_the_systems_below_the_users() -> None:
    assert places.USER_SOCKETS == "%t/filesystems" and places.PACKAGED_USER_UNITS == "lib/systemd/user"
