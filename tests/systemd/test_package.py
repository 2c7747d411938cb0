"""Units as a package brings them: staged into its tree, for a Python that finds us without a virtual environment."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support.capabilities import PROGRAMS, REPOSITORY
from tests.systemd.conftest import make_image, servers
from tests.systemd.machine import Machine

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")


def test_a_package_is_staged_enabled_and_serves(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    command: list[str | Path] = [PROGRAMS / "fuservice", "units", "install", "--root", tree, "--prefix", "/usr", "ext4"]
    subprocess.run(command, check=True)
    files: dict[str, str | bytes | Path] = {
        f"/{path.relative_to(tree)}": path.read_text() for path in tree.rglob("*") if path.is_file()
    }
    package = sysconfig.get_path(
        "purelib", "deb_system", vars={"base": "/usr"}
    )  # dist-packages, where Debian has packages
    for path in (REPOSITORY / "src/fuservice").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            files[f"{package}/{path.relative_to(REPOSITORY / 'src')}"] = path.read_bytes()
    with Machine(files) as machine:
        make_image(machine.root / "srv/image")
        status = ["/usr/bin/python3", "-I", "-m", "fuservice.cli.main", "units", "status", "ext4"]
        place = "/usr/lib/systemd/system"
        assert machine.run(*status).stdout == (
            f"ext4: installed in {place}; socket inactive (`systemctl enable --now fuservice-ext4.socket'); 0 servers\n"
        )
        machine.run("systemctl", "enable", "--now", "fuservice-ext4.socket")
        machine.run("mkdir", "-p", "/mnt/a")
        machine.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4")
        assert machine.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
        (unit,) = servers(machine)
        assert machine.run(*status).stdout == f"ext4: installed in {place}; socket active; 1 server\n"
        machine.run("systemctl", "kill", "--signal=KILL", unit)
        assert machine.becomes(lambda: machine.run("ls", "/mnt/a", check=False).stdout == "")
        assert machine.becomes(lambda: not servers(machine))
