"""Whose service a helper asks: that of the caller's own session first, where nobody else could have put a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.capabilities import PROGRAMS

USER = 4242
CODE = (
    "import sys; from fuservice.cli.commandline import CommandLine; from fuservice.cli.fuservicemount import main; "
    "print(CommandLine(['x', *sys.argv[1:]]).socket_path); print(main(['x', '-t', sys.argv[2], '--check']))"
)

pytestmark = pytest.mark.needs("root", "nobody-python", "installed")


def asked_by(uid: int, directory: str | Path, *words: str) -> tuple[str, bool]:
    """Return where a helper of user *uid*, whose runtime directory is *directory*, looks; and what --check says."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    command: list[str | Path] = [
        "env",
        f"XDG_RUNTIME_DIR={directory}",
        *become,
        PROGRAMS / "python",
        "-Ic",
        CODE,
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path, code = done.stdout.split()
    return path, code == "0"


@pytest.fixture
def own() -> Iterator[Path]:
    """Give a runtime directory of USER's, with a socket for type x."""
    place = Path(tempfile.mkdtemp(prefix="fuservice-test-"))
    path = place / "filesystems/x"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(os.fspath(path))
    for one in (place, path.parent, path):
        os.chown(one, USER, USER)
    yield place
    path.unlink()
    path.parent.rmdir()
    place.rmdir()


def test_a_user_asks_services_of_his_own_first(own: Path) -> None:
    assert asked_by(USER, own, "-t", "x") == (f"{own}/filesystems/x", True)
    assert asked_by(USER, own, "-t", "y") == ("/run/filesystems/y", False)
    assert asked_by(USER, own, "-t", "x", "--socket-dir=/there")[0] == "/there/x"


@pytest.mark.parametrize(("uid", "mode"), [(0, 0o700), (USER + 1, 0o711), (USER, 0o755), (USER, 0o1700)])
def test_a_directory_that_is_not_his_alone_is_passed_over(own: Path, uid: int, mode: int) -> None:
    """Root asks the system's services always."""
    own.chmod(mode)
    assert asked_by(uid, own, "-t", "x") == ("/run/filesystems/x", False)


def test_what_is_no_directory_is_passed_over(own: Path) -> None:
    link = own.with_name(f"{own.name}-link")
    link.symlink_to(own)
    try:
        os.lchown(link, USER, USER)
        for place in (link, "", "relative", "/nowhere/at/all", own / "filesystems/x"):
            assert asked_by(USER, place, "-t", "x")[0] == "/run/filesystems/x"
    finally:
        link.unlink()
