"""What is installed: every file of the built wheel and of the tree that it makes. Nothing gains rights by being executed."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from fuservice import __version__
from tests.support.capabilities import PROGRAMS, REPOSITORY

CAPABILITY = "security.capability"  # capabilities(7), file capabilities
#: struct vfs_cap_data, revision 2, with CAP_SYS_ADMIN permitted (linux/capability.h).
SOME = struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the wheel, built by our own build backend."""
    place = tmp_path_factory.mktemp("wheel")
    command: list[str | Path] = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def tree(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tree that an installer makes of it. Not at the expense of what is installed: pip would take that away."""
    prefix = tmp_path_factory.mktemp("prefix")
    words = [
        "--ignore-installed",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--prefix",
        os.fspath(prefix),
        os.fspath(wheel),
    ]
    subprocess.run([sys.executable, "-m", "pip", "-qq", "install", *words], check=True, capture_output=True)
    return prefix


def privileged(paths: Iterable[Path]) -> list[str]:
    """Return what gains rights when it is executed: a set-user-ID or set-group-ID bit, or file capabilities."""
    found = []
    for path in paths:
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            found.append(f"{path}: mode {stat.S_IMODE(mode):o}")
        if CAPABILITY in os.listxattr(path):
            found.append(f"{path}: has file capabilities")
    return found


@pytest.mark.needs("hatchling")
def test_no_file_of_the_wheel_is_set_user_id(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert not [name for name, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX)]
    scripts = {name.rpartition("/")[2]: mode for name, mode in modes.items() if "/scripts/" in name}
    assert set(scripts) == {"fuservice", "fuservicemount", "mount.fuservice"}
    assert all(stat.S_ISREG(mode) and mode & 0o777 in (0o755, 0o775) for mode in scripts.values()), scripts


@pytest.mark.needs("hatchling")
def test_no_file_of_the_installed_tree_gains_rights(tree: Path) -> None:
    files = list(tree.rglob("*"))
    assert not privileged(files)
    names = {os.fspath(path.relative_to(tree)) for path in files}
    assert names >= {
        "bin/fuservice", "bin/fuservicemount", "bin/mount.fuservice", "share/man/man1/fuservice.1",
        "share/bash-completion/completions/fuservice", "share/zsh/site-functions/_fuservice",
        "share/fish/vendor_completions.d/fuservice.fish", "share/pkgconfig/fuservice.pc",
    }  # fmt: skip
    done = subprocess.run([tree / "bin/fuservice", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fuservice {__version__}\n"


@pytest.mark.needs("installed")
def test_no_program_of_the_checkout_gains_rights() -> None:
    assert not privileged(path for path in PROGRAMS.iterdir() if path.name.startswith(("fuservice", "mount.")))


@pytest.mark.needs("root")
def test_what_would_gain_rights_is_found(tmp_path: Path) -> None:
    user, group, capable = (tmp_path / name for name in ("user", "group", "capable"))
    for path in (user, group, capable):
        path.touch()
    user.chmod(0o4755)
    group.chmod(0o2755)
    os.setxattr(capable, CAPABILITY, SOME)
    assert len(privileged([user, group, capable, tmp_path])) == 3
