"""Servers that systemd starts for one helper alone: nobody listens, nothing is installed, and the walls are the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.systemd.conftest import make_image, mounts
from tests.systemd.machine import Machine
from tests.systemd.test_user import MAY_MOUNT, OWN, UID

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("systemd", "fuse", "e2fsprogs", "installed", "nobody-python")

#: What systemd knows of a service and is no wall: its names, its life, and how it was started.
OF_EACH = (
    "Id", "Names", "Description", "Documentation", "InvocationID", "ExecStart", "ExecStartEx", "MainPID", "ExecMainPID", "ControlGroup", "ControlGroupId",
    "User", "Group", "StatusText", "TriggeredBy", "FragmentPath", "UnitFileState", "UnitFilePreset", "Transient", "Slice", "Requires",
    "After", "Environment", "SourcePath", "CPUUsageNSec", "MemoryCurrent", "TasksCurrent", "UID", "GID", "NFileDescriptorStore",
    "StandardInput", "RequiresMountsFor", "Wants", "Before",
)  # fmt: skip


@pytest.fixture(scope="module")
def bare() -> Iterator[Machine]:
    """Give a machine without units of ours, an image /srv/image and a place for it."""
    with Machine() as machine:
        make_image(machine.root / "srv/image")
        machine.run("mkdir", "/mnt/a")
        yield machine


@pytest.fixture
def clean(bare: Machine) -> Iterator[Machine]:
    """The same; at the end there is no unit of ours again."""
    yield bare
    for point in mounts(bare):
        bare.run("umount", "-l", point)
    assert bare.becomes(lambda: not units(bare)), units(bare)


def units(machine: Machine, *words: str) -> list[str]:
    """Return the services that systemd knows of us."""
    command = ("systemctl", *words, "list-units", "--all", "--plain", "--no-legend", "fuservice-*")
    return [line.split()[0] for line in machine.run(*command).stdout.splitlines()]


def helper(machine: Machine, *words: str, **variables: str) -> tuple[int, str]:
    """Have root, whose files are nobody else's, mount the image by a transient start; return the exit code and the complaint."""
    command = (
        "sh",
        "-c",
        'umask 077; exec "$@"',
        "sh",
        "fuservicemount",
        "/srv/image",
        "/mnt/a",
        "-t",
        "ext4",
        "--transient",
        *words,
    )
    done = machine.run(*command, check=False, environment=variables)
    return done.returncode, done.stderr


def test_from_one_helper_to_nothing_left(clean: Machine) -> None:
    assert not clean.run("sh", "-c", "ls -A /run/filesystems 2>/dev/null || :").stdout
    assert helper(clean) == (0, "")
    (unit,) = units(clean)
    assert clean.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
    (row,) = json.loads(clean.run("fuservice", "list", "--json").stdout)
    assert (row["cage"], row["unit"], row["socket"]) == ("systemd", unit, "transient")
    assert clean.run("pgrep", "-c", "systemd-run", check=False).stdout == "0\n"
    clean.journal()
    assert "Started fuservice-ext4-" in clean.run("fuservice", "log", "/mnt/a").stdout
    clean.run("umount", "/mnt/a")
    assert clean.becomes(lambda: not units(clean))
    assert (
        clean.run("find", "/run/systemd/transient", "/run/filesystems", "-name", "*fuservice*", check=False).stdout
        == ""
    )


def test_a_dead_one_is_detached_as_that_of_a_template(clean: Machine) -> None:
    assert helper(clean) == (0, "")
    clean.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", *units(clean))
    assert clean.becomes(lambda: not mounts(clean))
    assert clean.becomes(lambda: not units(clean))


def test_it_is_a_word_of_fuservice_mount_too(clean: Machine) -> None:
    clean.run("sh", "-c", "head -c 65536 /dev/zero >/tmp/zeros")
    refused = clean.run("fuservice", "mount", "--transient", "-t", "ext4", "/tmp/zeros", "/mnt/a", check=False)
    assert refused.returncode == 1 and "the magic number is 0x0000" in refused.stderr and "journalctl" in refused.stderr
    assert clean.run("fuservice", "mount", "--transient", "/srv/image", "/mnt/a").stdout == "/mnt/a\n"
    assert len(units(clean)) == 1
    clean.run("fuservice", "umount", "/mnt/a")


def facts(machine: Machine, unit: str) -> dict[str, str]:
    """Return all that systemd knows of *unit*, but what is of each alone."""
    lines = re.sub(
        r" ext4 [-0-9a-f]+-0 ;", " ext4 INSTANCE ;", machine.run("systemctl", "show", "--all", unit).stdout
    ).splitlines()
    # A helper is run by the same Python by its other name.
    pairs = (line.replace("/bin/python3 ", "/bin/python ").partition("=") for line in lines)
    return {
        name: " ".join(sorted(value.split())) for name, _, value in pairs
        if name not in OF_EACH and not name.endswith(("Timestamp", "TimestampMonotonic", "UniqueId"))
    }  # fmt: skip


def test_the_walls_are_those_of_the_template(clean: Machine) -> None:
    """One of each, side by side, as systemd has understood them."""
    clean.run("mkdir", "-p", "/mnt/b")
    clean.run("fuservice", "units", "install", "ext4")
    try:
        clean.run("fuservicemount", "/srv/image", "/mnt/b", "-t", "ext4")
        assert helper(clean) == (0, "")
        (template,) = [name for name in units(clean) if "@" in name]
        (transient,) = [name for name in units(clean) if "@" not in name and name.endswith(".service")]
        ours, theirs = facts(clean, transient), facts(clean, template)
        differing = {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}
        print(len(ours), "properties;", *(f"{name}: {theirs.get(name)} / {ours.get(name)}" for name in differing))
        assert differing == {"RestrictAddressFamilies", "SystemCallFilter"}
        missing = set(theirs["SystemCallFilter"].split()) - set(ours["SystemCallFilter"].split())
        assert missing == {"socket"} and set(ours["SystemCallFilter"].split()) < set(theirs["SystemCallFilter"].split())
        assert clean.run("systemctl", "show", "--value", "--property=User", transient).stdout.startswith("fsd-")
        for point in ("/mnt/a", "/mnt/b"):
            clean.run("umount", point)
    finally:
        clean.run("fuservice", "units", "remove")


def test_a_wall_that_is_missing_is_a_sentence_and_no_mount(clean: Machine) -> None:
    drop_in = "/run/systemd/system/fuservice-ext4-.service.d"
    clean.run("mkdir", "-p", drop_in)
    clean.run("tee", f"{drop_in}/less.conf", text="[Service]\nPrivateUsers=no\n")
    clean.run("systemctl", "daemon-reload")
    try:
        code, said = helper(clean)
        assert code == 1 and said.count("\n") == 1
        assert "systemd has started no server of ext4: PermissionError: [Errno 1] systemd has not built what" in said
        assert ", see journalctl --unit fuservice-ext4-" in said
        assert "systemd has not built what the unit says: the wall `user'" in clean.journal("-t", "fuservice-ext4")
        assert "server ended with exit status 70" in clean.journal("-t", "fuservice-ext4", "-p", "warning")
    finally:
        clean.run("rm", "-r", drop_in)
        clean.run("systemctl", "daemon-reload")


def test_a_helper_that_is_killed_leaves_nothing(clean: Machine) -> None:
    """Wherever it was: systemd-run, which waits for the service, ends with it, and that with the connection."""
    for tenths in (1, 3, 5, 7):
        clean.run("timeout", "--signal=KILL", f"0.{tenths}", "fuservicemount", "/srv/image", "/mnt/a", "-t", "ext4", "--transient",
                  check=False)  # fmt: skip
        if mounts(clean):  # it was quicker
            assert clean.run("cat", "/mnt/a/words").stdout == "read through systemd\n"
            clean.run("umount", "/mnt/a")
        assert clean.becomes(lambda: not units(clean)) and not mounts(clean)
        assert clean.becomes(lambda: clean.run("pgrep", "-c", "systemd-run", check=False).stdout == "0\n")


@pytest.mark.parametrize(("script", "said"), [
    ("systemctl", "systemd 251 lacks walls that units need: expected 252 or newer"),
    ("systemd-run", "systemd has started no server of ext4"),
])  # fmt: skip
def test_a_systemd_that_cannot_is_a_sentence_and_nothing_else_is_tried(clean: Machine, script: str, said: str) -> None:
    clean.run("mkdir", "-p", "/tmp/bin")
    clean.run("tee", f"/tmp/bin/{script}", text="#!/bin/sh\necho systemd 251\nexit 1\n")
    clean.run("chmod", "0755", f"/tmp/bin/{script}")
    try:
        path = clean.run("sh", "-c", "echo $PATH").stdout.strip()
        code, complaint = helper(clean, PATH=f"/tmp/bin:{path}")
        assert code == 1 and said in complaint and complaint.count("\n") == 1
    finally:
        clean.run("rm", f"/tmp/bin/{script}")


def test_why_systemd_starts_nothing_is_told(clean: Machine) -> None:
    clean.run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        code, said = helper(clean)
        assert code == 1 and "systemd has started no server of ext4: Failed to connect to " in said
        assert said.endswith(": Connection refused\n")
    finally:
        clean.run("systemctl", "start", "dbus.socket")


def test_a_users_is_started_by_the_users_own_manager(clean: Machine) -> None:
    clean.run("useradd", "--create-home", "--uid", str(UID), "alice")
    clean.run("install", "-o", "alice", "/srv/image", "/home/alice/image")
    clean.run("install", "-d", "-o", "alice", "/home/alice/mnt")
    clean.run("systemctl", "start", f"user@{UID}.service")
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    variables = {"XDG_RUNTIME_DIR": OWN, "HOME": "/home/alice"}
    command = ["fuservicemount", "/home/alice/image", "/home/alice/mnt", "-t", "ext4", "--transient"]
    try:
        clean.run(*become, *MAY_MOUNT, *command, environment=variables)
        listed = clean.run(
            *become, "systemctl", "--user", "list-units", "--plain", "--no-legend", "fuservice-*", environment=variables
        )
        assert listed.stdout.startswith("fuservice-ext4-") and not units(clean)
        (row,) = json.loads(clean.run(*become, "fuservice", "list", "--all", "--json", environment=variables).stdout)
        assert row["cage"] == "whole" and row["unit"] == listed.stdout.split()[0]
        clean.run("umount", "/home/alice/mnt")
        without = clean.run(*become, *MAY_MOUNT, *command, check=False)
        assert without.returncode == 1 and "no systemd of this user's runs here (try --direct)" in without.stderr
    finally:
        clean.run("systemctl", "stop", f"user@{UID}.service")


def test_a_hostile_name_starts_nothing(clean: Machine) -> None:
    done = clean.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "../x", "--transient", check=False)
    assert done.returncode == 1
    done = clean.run("fuservicemount", "/srv/image", "/mnt/a", "-t", "nosuch", "--transient", check=False)
    assert done.returncode == 2 and "a transient start knows ext2" in done.stderr
    assert not units(clean)
