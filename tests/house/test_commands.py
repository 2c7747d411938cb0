"""What the commands say when something is missing: one sentence, with the way out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import kernel
from tests.support.capabilities import REPOSITORY

NEED = REPOSITORY / "scripts/need-packages"
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def said(*command: str | Path, stdin: bytes | None = None, **environment: str) -> list[str]:
    """Run a command that must fail, saying nothing on standard output; return the lines on standard error."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}
    done = subprocess.run(command, cwd="/", env=env, input=stdin, capture_output=True, check=False)
    assert done.returncode != 0 and not done.stdout, done
    return [line for line in done.stderr.decode().splitlines() if not line.startswith("make: ***")]


def can_mount(*before: str) -> list[str]:
    """Ask the Makefile whether this machine can mount, in the words of `make test`."""
    makefile = (REPOSITORY / "Makefile").read_bytes()
    return said(*before, "make", "-f", "-", "can-mount", stdin=makefile)


@pytest.mark.needs("root")
def test_without_root() -> None:
    (line,) = can_mount(*AS_NOBODY)
    assert line.startswith("make: mounting needs root: try  sudo make")


@pytest.mark.needs("root", "fuse")
def test_without_the_fuse_device(tmp_path: Path) -> None:
    (tmp_path / "no-device").touch()
    (tmp_path / "modprobe").symlink_to("/bin/true")
    kernel.mount(str(tmp_path / "no-device"), "/dev/fuse", None, 0x1000)  # MS_BIND, in a mount namespace of our own
    try:
        (line,) = can_mount("env", f"PATH={tmp_path}:/usr/bin:/bin")
    finally:
        kernel.umount2("/dev/fuse", kernel.MNT_DETACH)
    assert line.startswith("make: /dev/fuse cannot be opened: load the kernel's fuse module (modprobe fuse), or start")


@pytest.mark.needs("root")
def test_a_package_is_missing_and_we_are_not_root() -> None:
    script = NEED.read_bytes()
    (line,) = said(*AS_NOBODY, "sh", "-s", "make", "no-such-package", "coreutils", stdin=script)
    assert line.startswith("make: needs packages that are not installed: run  apt-get install no-such-package  as root")


def test_no_apt(tmp_path: Path) -> None:
    (line,) = said("/bin/sh", NEED, "make", "e2fsprogs", "mount", PATH=str(tmp_path))
    assert line == "make: needs (in Debian's words) e2fsprogs mount: no apt-get here, install their like by hand."


def test_nothing_is_missing_and_nothing_is_said() -> None:
    done = subprocess.run([NEED, "make", "coreutils"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
