"""The broker's units as text: nothing in them puts it into a mount namespace, and each line says why."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from fuservice.cli.main import main
from fuservice.units import broker, places
from tests.units.test_service import VERSIONS, directives, exposure

PROGRAM = places.Program("/usr/bin/python3", ["/opt/there"])
MOST_EXPOSURE = 35  # tenths: what is left would take a mount namespace, or be no broker

#: For any of these systemd makes a mount namespace, in which a broker would mount for nobody (systemd.exec(5)).
NAMESPACED = {
    "BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "InaccessiblePaths", "LogNamespace", "MountAPIVFS", "MountFlags",
    "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivatePIDs", "PrivateTmp", "PrivateUsers",
    "ProcSubset", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
    "ProtectKernelTunables", "ProtectProc", "ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage",
    "TemporaryFileSystem",
}  # fmt: skip


def texts(version: int) -> dict[str, str]:
    """Return name → text of both units."""
    return {broker.SOCKET: broker.socket("/run/x/broker", version), broker.SERVICE: broker.service(PROGRAM, version)}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sentence_stands_above_each_directive(version: int) -> None:
    for text in texts(version).values():
        for above, line in itertools.pairwise(text.splitlines()):
            if line and line[0] not in "#[":
                assert above.startswith("# ") and above.endswith((".", "…", ".)")), line


@pytest.mark.parametrize("version", VERSIONS)
def test_it_stays_where_its_callers_are(version: int) -> None:
    found = directives(texts(version)[broker.SERVICE])
    names = {name for name, _ in found}
    assert not names & NAMESPACED
    assert ("PrivateMounts", "no") in found  # or PrivateNetwork= would bring one, from systemd 254 on
    assert names >= {
        "CapabilityBoundingSet",
        "NoNewPrivileges",
        "SystemCallFilter",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
    }


@pytest.mark.needs("systemd")
def test_what_systemd_thinks_of_them(tmp_path: Path) -> None:
    for name, text in texts(252).items():
        (tmp_path / name).write_text(text.replace("ExecStart=", "ExecStart=/usr/bin/env -S "))
    words = [str(tmp_path / name) for name in texts(252)]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *words], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    print(f"exposure of {broker.SERVICE}: {exposure(tmp_path / broker.SERVICE, MOST_EXPOSURE)}")


@pytest.mark.needs("systemd")
def test_a_package_s_are_staged_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--broker", "--root", str(tmp_path), "--prefix", "/usr"]
    assert main(["units", "install", *words]) == 0
    place = tmp_path / "usr/lib/systemd/system"
    assert {path.name for path in place.iterdir()} == {broker.SOCKET, broker.SERVICE}
    assert "ExecStart=/usr/bin/python3 -I -m fuservice.cli.broker\n" in (place / broker.SERVICE).read_text()
    assert main(["units", "status", *words]) == 0
    assert main(["units", "remove", *words, "--dry-run"]) == 0
    assert main(["units", "remove", *words]) == 0
    assert main(["units", "status", *words]) == 0
    assert capsys.readouterr().out == f"broker: installed in {place}\n{place / broker.SOCKET}\nbroker: not installed\n"
    assert not list(place.iterdir())


@pytest.mark.parametrize("words", [["--user"], ["ext4"]])
@pytest.mark.parametrize("doing", ["install", "remove", "status"])
def test_it_is_the_system_s_and_of_no_type(
    doing: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["units", doing, "--broker", "--root", str(tmp_path), *words]) == 64
    assert "units: --broker: it is the system's, and serves no type" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
