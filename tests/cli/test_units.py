"""``fuservice units`` without a systemd that runs, and ``fuservice config``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fuservice.cli import config
from fuservice.cli.main import main
from fuservice.drivers import catalog
from tests.support.capabilities import REPOSITORY

UNITS = "usr/lib/systemd/system"


def files(root: Path) -> set[str]:
    """Return the paths of the files below *root*."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def packaged(*names: str) -> set[str]:
    """Return the paths of the units of *names*, in a package."""
    units = {f"{UNITS}/fuservice-{name}{end}" for name in names for end in (".socket", "@.service")}
    return units | {f"{UNITS}/run-fuservice-root.mount"}


@pytest.mark.needs("systemd")
def test_units_of_a_package_are_staged_and_removed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--root", str(tmp_path), "--prefix", "/usr"]
    assert main(["units", "install", *words, "ext4", "memtree"]) == 0
    assert files(tmp_path) == packaged("ext4", "memtree")
    text = (tmp_path / UNITS / "fuservice-ext4@.service").read_text()
    assert "ExecStart=/usr/bin/python3 -I -m fuservice.cli.unit ext4 %i\n" in text
    assert str(REPOSITORY) not in text
    assert main(["units", "status", *words, "ext4", "ext2"]) == 0
    assert capsys.readouterr().out == f"ext4: installed in {tmp_path}/{UNITS}\next2: not installed\n"
    assert main(["units", "remove", *words, "ext4"]) == 0
    assert files(tmp_path) == packaged("memtree")
    assert main(["units", "remove", *words]) == 0
    assert files(tmp_path) == set()


@pytest.mark.needs("systemd")
def test_units_of_users_are_staged_beside_those_of_the_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    names = {"fuservice-ext4.socket", "fuservice-ext4@.service", "fuservice-tidy@.service"}
    for words, place in (((), "etc/systemd/user"), (("--prefix", "/usr"), "usr/lib/systemd/user")):
        command = ["--user", "--root", str(tmp_path), *words, "ext4"]
        assert main(["units", "install", *command]) == 0
        assert files(tmp_path) == {f"{place}/{name}" for name in names}
        assert main(["units", "status", *command]) == 0
        assert capsys.readouterr().out == f"ext4: installed in {tmp_path}/{place}\n"
        assert main(["units", "remove", *command]) == 0
        assert files(tmp_path) == set()


@pytest.mark.needs("systemd")
def test_status_tells_a_unit_that_somebody_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--root", str(tmp_path), "ext4"]
    main(["units", "install", *words])
    with (tmp_path / "etc/systemd/system/fuservice-ext4@.service").open("a") as unit:
        unit.write("PrivateNetwork=no\n")
    (tmp_path / "etc/systemd/system/fuservice-ext4.socket").write_text("[Socket]\n")
    main(["units", "status", *words])
    said = capsys.readouterr().out
    assert "but fuservice-ext4.socket is not what this version makes and fuservice-ext4@.service is not what" in said
    (tmp_path / "etc/systemd/system/fuservice-ext4@.service").unlink()
    main(["units", "status", *words])
    assert "fuservice-ext4@.service is missing and fuservice-ext4.socket is not what" in capsys.readouterr().out


def test_a_dry_run_prints_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["units", "install", "--root", str(tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for name in catalog.DRIVERS:
        assert f"ListenSequentialPacket=/run/filesystems/{name}\n" in said
    assert files(tmp_path) == set()


@pytest.mark.needs("systemd")
def test_what_systemd_does_not_take_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["units", "install", "--root", str(tmp_path), "--prefix", "/nowhere", "ext4"]) == 1
    assert "nothing was installed: " in capsys.readouterr().err
    assert files(tmp_path) == set()


def test_a_type_that_nobody_serves_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["units", "install", "--dry-run", "nosuch"]) == 64
    assert "no driver for type `nosuch'" in capsys.readouterr().err


def test_config_tells_one_variable_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--variable=service_socket_dir"]) == 0
    assert capsys.readouterr().out == "/run/filesystems\n"
    assert main(["config"]) == 0
    assert dict(line.split("=") for line in capsys.readouterr().out.splitlines()) == config.VARIABLES
    assert main(["config", "--variable=nosuch"]) == 64


@pytest.mark.needs("libfuse3")  # for pkg-config
@pytest.mark.parametrize("name", [name for name in config.VARIABLES if name != "version"])
def test_pkg_config_says_the_same(name: str) -> None:
    command = ["pkg-config", f"--variable={name}", f"{REPOSITORY}/scripts/fuservice.pc"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert said == config.VARIABLES[name]


@pytest.mark.needs("libfuse3")
def test_pkg_config_knows_our_version() -> None:
    command = ["pkg-config", "--modversion", f"{REPOSITORY}/scripts/fuservice.pc"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert said == config.VARIABLES["version"]
