"""The systemd of this machine and of this user: which it is, whether it runs, and how it starts us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fuservice
from fuservice.cli.runtime import runtime_directory
from fuservice.errors import PolicyError, SystemCallError
from fuservice.units import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

OLDEST: Final = 252  # what the tests run on
RUNS: Final = "/run/systemd/system"  # sd_booted(3)


def runs() -> bool:
    """Return whether systemd runs this machine."""
    return os.path.isdir(RUNS)  # noqa: PTH112


def runs_for_user() -> bool:
    """Return whether this user, who is not root, has a manager of their own."""
    own = runtime_directory()
    return bool(own) and os.path.exists(f"{own}/systemd/private")  # noqa: PTH110


def program(prefix: str) -> places.Program:
    """Return how units start us: as we are here, or as a package below *prefix*."""
    if prefix:
        return places.Program(f"{prefix}/bin/python3", [] if prefix == "/usr" else [prefix])
    package, beside = str(Path(fuservice.__file__).parent), Path(sys.executable).parents[1]
    # A mount helper runs without site, which is what would tell Python that it is a virtual environment's.
    venv = str(beside) if (beside / "pyvenv.cfg").exists() else sys.prefix
    needed = dict.fromkeys(path for path in (venv, sys.base_prefix, package) if not path.startswith("/usr/"))
    return places.Program(sys.executable, [path for path in needed if path != "/usr"])


def version() -> int:
    """Return systemd's version; that of the oldest we know where there is none to ask."""
    try:
        word = systemctl("--version").stdout.split()[1]
    except (SystemCallError, IndexError):
        return OLDEST
    version = int(word) if word.isdecimal() else OLDEST
    if version < OLDEST:
        raise PolicyError(f"systemd {version} lacks walls that units need: expected {OLDEST} or newer (try "
                          "`fuservice listen')")  # fmt: skip
    return version


def systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl(1); return what it said, and its exit code. SystemCallError where it cannot be run."""
    command = ["systemctl", *words]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemCallError(f"systemctl: {error.strerror}") from None
