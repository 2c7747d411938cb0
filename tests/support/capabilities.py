"""What a machine may lack: one probe per capability, each returns None or the reason.

A test says ``@pytest.mark.needs("root", "fuse")`` and is skipped with the reason where one is missing;
``--must-have=root,fuse`` turns that skip into a failure, so that CI cannot pass by having nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = REPOSITORY / ".venv/bin"

Probe = Callable[[], str | None]


def _runs(*command: str, why: str) -> str | None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{why}: {error}"
    return None if done.returncode == 0 else f"{why}: {done.stderr.decode(errors='replace').strip()[:200]}"


def _programs(package: str, *names: str) -> Probe:
    def probe() -> str | None:
        absent = [name for name in names if shutil.which(name) is None]
        return f"{' and '.join(absent)} not found (apt-get install {package})" if absent else None

    return probe


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not root"


def _fuse() -> str | None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    flags = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    return _runs("unshare", *flags, "true", why="no mount namespace can be made")


def _loop() -> str | None:
    if os.geteuid() != 0:
        return "not root, so no loop device"
    return _runs("losetup", "--find", why="no free loop device")


def _ext4() -> str | None:
    known = Path("/proc/filesystems").read_text().split()
    return None if "ext4" in known else "this kernel has no ext4 (try: modprobe ext4)"


def _userns() -> str | None:
    return _runs("unshare", "-Ur", "true", why="no user namespace can be made")


def _netns() -> str | None:
    flags = ["-n"] if os.geteuid() == 0 else ["-Urn"]
    return _runs("unshare", *flags, "true", why="no network namespace can be made")


def _systemd() -> str | None:
    if os.geteuid() != 0:
        return "not root, so no systemd can be booted"
    if not any(Path(f"{place}/systemd/systemd").exists() for place in ("/usr/lib", "/lib")):
        return "no systemd on this machine (apt-get install systemd dbus libnss-systemd)"
    if not any(line.split(" ")[2] == "cgroup2" for line in Path("/proc/self/mounts").read_text().splitlines()):
        return "no cgroup2 is mounted"
    absent = _programs("systemd dbus", "systemd-analyze", "systemctl", "dbus-daemon", "nsenter")()
    layers = "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work"
    overlay = f"mount -t tmpfs none /tmp && mkdir /tmp/upper /tmp/work && mount -t overlay -o {layers} none /mnt"
    words = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "sh", "-c", overlay)
    return absent or _runs("unshare", *words, why="no machine of its own for systemd can be made")


def _libfuse3() -> str | None:
    return _runs("pkg-config", "--exists", "fuse3", why="no libfuse headers (apt-get install libfuse3-dev pkg-config)")


#: What runs a command as a user without any right.
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def _installed() -> str | None:
    absent = [name for name in ("fuservice", "fuservicemount") if not (PROGRAMS / name).exists()]
    return f"{' and '.join(absent)} not in .venv/bin (make setup)" if absent else None


def _nobody_python() -> str | None:
    if os.geteuid() != 0:
        return "not root, so no other uid can be tried"
    # By way of sh: setpriv still has root's reach when it executes its command.
    reach = 'cd "$0" && exec .venv/bin/python3 -I -S -c "open(\'src/fuservice/__init__.py\')"'
    why = "uid 65534 cannot reach the checkout and its Python (is a directory above it closed?)"
    return _runs(*AS_NOBODY, "sh", "-c", reach, os.fspath(REPOSITORY), why=why)


def _mtab() -> str | None:
    return None if os.access("/etc/mtab", os.W_OK) else "no /etc/mtab, so mount(8)'s notes are not kept here"


def _atheris() -> str | None:
    return None if importlib.util.find_spec("atheris") else "no atheris here (pip install atheris; x86-64 only)"


def _hatchling() -> str | None:
    return None if importlib.util.find_spec("hatchling") else "no hatchling here, to build a wheel (make dev)"


PROBES: dict[str, Probe] = {
    name: functools.cache(probe)
    for name, probe in {
        "root": _root,
        "fuse": _fuse,
        "loop": _loop,
        "ext4": _ext4,
        "userns": _userns,
        "netns": _netns,
        "gcc": _programs("gcc libc6-dev linux-libc-dev", "gcc"),
        "e2fsprogs": _programs("e2fsprogs", "mkfs.ext4", "debugfs", "e2fsck"),
        "squashfuse": _programs("squashfuse squashfs-tools", "squashfuse_ll", "mksquashfs"),
        "fuse2fs": _programs("fuse2fs", "fuse2fs"),
        "fusermount3": _programs("fuse3", "fusermount3"),
        "libfuse3": _libfuse3,
        "zsh": _programs("zsh", "zsh"),
        "fish": _programs("fish", "fish"),
        "strace": _programs("strace", "strace"),
        "systemd": _systemd,
        "installed": _installed,
        "nobody-python": _nobody_python,
        "atheris": _atheris,
        "hatchling": _hatchling,
        "mtab": _mtab,
    }.items()
}


def names(text: str) -> set[str]:
    """Return the capabilities that the comma list *text* names; raise ValueError naming those that nobody knows."""
    wanted = {word.strip() for word in text.split(",") if word.strip()}
    if strangers := wanted - set(PROBES):
        raise ValueError(f"no such capability: {', '.join(sorted(strangers))} (known: {', '.join(PROBES)})")
    return wanted


def missing() -> dict[str, str]:
    """Return what this machine lacks, with the reasons."""
    return {name: reason for name, probe in PROBES.items() if (reason := probe())}
