"""The installed program: a script that sh and Python both read. It finds its Python and its package, whoever runs it.

Tried on small installations made here, whose ``main`` tells what Python it was started by and with what.
"""

from __future__ import annotations

import ast
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, TypedDict

import pytest

from tests.support.capabilities import REPOSITORY

LAUNCHER = REPOSITORY / "scripts/fuservicemount"
SYSTEM_PYTHON = Path("/usr/bin/python3")

pytestmark = pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="no /usr/bin/python3")

TELL = """
import os, sys

def main(argv: list[str]) -> int:
    flags = {"isolated": sys.flags.isolated, "no_site": sys.flags.no_site}
    print(ascii({"argv": argv, "python": sys.executable, "uid": os.getuid(), **flags, "file": __file__}))
    return 3
"""


class Told(TypedDict):
    """What the installed ``main`` says of itself."""

    argv: list[str]
    python: str
    uid: int
    isolated: int
    no_site: int
    file: str


class Ended(NamedTuple):
    """How a run of the launcher ended."""

    code: int
    stdout: str
    stderr: str

    def told(self) -> Told:
        """Return what main said; it always ends with 3."""
        assert self.code == 3, self
        told: Told = ast.literal_eval(self.stdout)
        return told


def version_directory() -> str:
    """Return the name of the system Python's directory under lib."""
    code = "import sys; print('python%d.%d' % sys.version_info[:2])"
    return subprocess.run([SYSTEM_PYTHON, "-ISc", code], capture_output=True, text=True, check=True).stdout.strip()


def package(where: Path) -> None:
    """Make a package in *where* that stands in for ours."""
    (where / "fuservice/cli").mkdir(parents=True)
    for name in ("fuservice/__init__.py", "fuservice/cli/__init__.py"):
        (where / name).touch()
    (where / "fuservice/cli/fuservicemount.py").write_text(TELL)


def program(prefix: Path, *, python: bool = True) -> Path:
    """Put the launcher into *prefix*/bin, with a Python beside it if *python*."""
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(LAUNCHER, prefix / "bin")
    if python:
        (prefix / "bin/python3").symlink_to(SYSTEM_PYTHON)
    return prefix / "bin/fuservicemount"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Give the launcher of an installation as pip makes it in a virtual environment."""
    prefix = tmp_path / "a prefix with 'blanks' in it"
    package(prefix / "lib" / version_directory() / "site-packages")
    return program(prefix)


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> Ended:
    """Run the launcher as a user would, with nothing on standard input."""
    env = {"PATH": "/usr/bin:/bin", **environment}
    done = subprocess.run(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return Ended(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


def test_arguments_arrive_as_typed_and_the_exit_code_comes_back(installed: Path) -> None:
    words = ["image", "/mnt/a b", "-t", "ext4", "", "-", "--", "a'b\"c", "$HOME", "*", "new\nline"]
    told = run(installed, *words).told()
    assert told["argv"] == [str(installed), *words]
    assert told["isolated"] == 1 and told["no_site"] == 1
    assert told["python"] == str(installed.parent / "python3")


def test_bytes_that_are_not_utf8_survive(installed: Path) -> None:
    told = run(installed, os.fsdecode(b"caf\xe9")).told()
    assert os.fsencode(told["argv"][1]) == b"caf\xe9"


def test_run_through_a_link_the_name_is_the_links_and_the_package_the_files(installed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "sbin"
    elsewhere.mkdir()
    (elsewhere / "python3").write_text("#!/bin/sh\necho stranger\n")
    (elsewhere / "python3").chmod(0o755)
    link = elsewhere / "mount.fuservice"
    link.symlink_to(installed)
    told = run(link, "x").told()
    assert told["argv"] == [str(link), "x"]
    assert told["python"] == str(installed.parent / "python3")


def test_found_on_the_path_and_by_a_relative_name(installed: Path) -> None:
    assert run("sh", "-c", "fuservicemount x", PATH=f"{installed.parent}:/usr/bin:/bin").told()["argv"][1:] == ["x"]
    assert run("./fuservicemount", cwd=installed.parent).told()["argv"] == ["./fuservicemount"]


def test_hostile_variables_change_nothing(installed: Path, tmp_path: Path) -> None:
    package(tmp_path / "evil")
    (tmp_path / "evil/os.py").write_text("raise SystemExit('evil')")
    names = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSTARTUP", "PYTHONPLATLIBDIR", "ENV", "BASH_ENV")
    settings = [f"{name}={tmp_path}/evil" for name in names]
    told = run("env", *settings, "PYTHONINSPECT=1", "IFS=/", installed).told()
    assert Path(told["file"]).is_relative_to(installed.parents[1])


def test_nothing_beside_the_package_stands_in_for_pythons_own(installed: Path) -> None:
    (next(installed.parents[1].glob("lib/*/site-packages")) / "json.py").write_text("raise SystemExit('evil')")
    assert run(installed).told()


@pytest.mark.parametrize("python", ["missing", "dangling", "not executable"])
def test_without_a_python_of_its_own_the_systems_runs_it(installed: Path, python: str) -> None:
    beside = installed.parent / "python3"
    beside.unlink()
    if python == "dangling":
        beside.symlink_to("/nonexistent/python3")
    elif python == "not executable":
        beside.touch(mode=0o644)
    assert run(installed).told()["python"] == str(SYSTEM_PYTHON)


@pytest.mark.parametrize(
    "place",
    ["lib/{}/site-packages", "lib/python3/dist-packages", "local/lib/{}/dist-packages", "lib/python3.99/site-packages"],
)
def test_the_package_is_found_where_installers_put_it(tmp_path: Path, place: str) -> None:
    package(tmp_path / "usr" / place.format(version_directory()))
    assert Path(run(program(tmp_path / "usr")).told()["file"]).is_relative_to(tmp_path / "usr")


@pytest.mark.parametrize("name", ["_editable_impl_fuservice.pth", "_fuservice.pth"])
def test_an_editable_installation_is_followed(tmp_path: Path, name: str) -> None:
    package(tmp_path / "checkout/src")
    site = tmp_path / "venv/lib" / version_directory() / "site-packages"
    site.mkdir(parents=True)
    (site / name).write_text(f"{tmp_path}/checkout/src")
    assert Path(run(program(tmp_path / "venv")).told()["file"]).is_relative_to(tmp_path / "checkout")


def test_without_its_package_it_says_so(tmp_path: Path) -> None:
    ended = run(program(tmp_path / "usr"))
    assert ended.code == 127
    assert ended.stderr.startswith("fuservicemount: the package fuservice is not installed beside it (")
    assert ended.stderr.count("\n") == 1


def test_without_any_python_it_says_so(tmp_path: Path) -> None:
    launcher = program(tmp_path / "usr", python=False)
    launcher.write_text(launcher.read_text().replace("/usr/bin/python3", "/nonexistent/python3"))
    ended = run(launcher)
    assert ended.code == 127
    assert ended.stderr.startswith("fuservicemount: no Python that this user can run, neither ")


@pytest.mark.needs("root")
def test_another_user_runs_it(installed: Path) -> None:
    for directory in installed.parents:
        if str(directory) != "/tmp" and str(directory).startswith("/tmp/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert run(*as_nobody, str(installed), cwd=Path("/")).told()["uid"] == 65534


def test_it_costs_little(installed: Path) -> None:
    """The launcher itself (sh, os, the search) costs about 4 ms of CPU over a bare Python; a noisy machine gets 10."""

    def cpu(*command: str | Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(*command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare, ours = (sorted(cpu(*c) for _ in range(20))[3] for c in ((SYSTEM_PYTHON, "-ISc", "pass"), (installed,)))
    print(f"python3 -I -S -c pass {bare * 1e3:.1f} ms, the launcher {ours * 1e3:.1f} ms")
    assert ours - bare < 0.010


def test_under_its_other_name_it_is_the_other_program(tmp_path: Path) -> None:
    """The same file: also by way of a link, whatever that is called."""
    package(tmp_path / "lib" / version_directory() / "site-packages")
    program(tmp_path)
    (tmp_path / "lib" / version_directory() / "site-packages/fuservice/cli/main.py").write_text(TELL)
    other = tmp_path / "bin/fuservice"
    shutil.copy(LAUNCHER, other)
    (tmp_path / "link").symlink_to(other)
    for path in (other, tmp_path / "link"):
        told = run(path, "list").told()
        assert (
            told["argv"] == ["list"] and told["file"].endswith("cli/main.py") and told["isolated"] and told["no_site"]
        )
