"""Lines of fstab, by ``mount -a -T FILE``."""

from __future__ import annotations

import pytest

from tests.mount8.station import CONTENT, HELPER, PLACE, Station, shows

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "installed"), pytest.mark.timeout(60)]

SAFE = {"ro", "nosuid", "nodev"}
FAILED, SOME_FAILED = 32, 64  # mount(8), "EXIT STATUS"
MISSING = PLACE / "missing"
FAILURE = f"{HELPER}: fuse server failed mount, check dmesg/logs for details.\n"


@pytest.mark.parametrize("spec", ["{image} {point} fuservice.ext4", "ext4#{image} {point} fuservice"])
def test_a_line_is_mounted_once_however_often_it_is_asked_for(machine: Station, spec: str) -> None:
    line = f"{spec.format(image=machine.image, point=machine.point)} ro,x-systemd.automount,x-note=1"
    fstab = machine.fstab(line)
    assert machine.mount("-a", "-T", fstab) == (0, "", "")
    (mount,) = machine.mounted()
    assert shows(mount) == (str(machine.point), "fuse.ext4", str(machine.image), SAFE)
    assert (machine.point / "file").read_bytes() == CONTENT
    for _ in range(2):
        assert machine.mount("-a", "-T", fstab) == (0, "", "")
        assert machine.mounted() == [mount]
    assert machine.run("umount", machine.point).code == 0


def test_nofail_forgives_a_source_that_is_not_there(machine: Station) -> None:
    fstab = machine.fstab(
        f"{MISSING} {machine.point} fuservice.ext4 ro,nofail", f"{machine.image} {machine.other} fuservice.ext4 ro"
    )
    assert machine.mount("-a", "-T", fstab) == (0, "", "")
    assert [mount.point for mount in machine.mounted()] == [str(machine.other)]


def test_without_nofail_it_is_told_and_the_other_lines_are_mounted(machine: Station) -> None:
    fstab = machine.fstab(
        f"{MISSING} {machine.point} fuservice.ext4 ro", f"{machine.image} {machine.other} fuservice.ext4 ro"
    )
    told = f"{HELPER}: {MISSING}: No such file or directory\n{FAILURE}"
    assert machine.mount("-a", "-T", fstab) == (SOME_FAILED, "", told)
    assert [mount.point for mount in machine.mounted()] == [str(machine.other)]


@pytest.mark.parametrize("options", ["ro,nofail", "ro"])
def test_a_service_that_is_not_there_is_told_with_nofail_too(machine: Station, options: str) -> None:
    fstab = machine.fstab(f"{machine.image} {machine.point} fuservice.none {options}")
    told = f"{HELPER}: no safe filesystem driver for none available.\n"
    assert machine.mount("-a", "-T", fstab) == (FAILED, "", told)
    assert not machine.mounted()


def test_noauto_waits_until_it_is_named(machine: Station) -> None:
    fstab = machine.fstab(f"{machine.image} {machine.point} fuservice.ext4 noauto,noexec")
    assert machine.mount("-a", "-T", fstab) == (0, "", "")
    assert not machine.mounted()
    assert machine.mount("-T", fstab, machine.point) == (0, "", "")
    (mount,) = machine.mounted()
    assert shows(mount)[3] == SAFE | {"noexec"}


@pytest.mark.parametrize("word", ["user", "users", "owner"])
def test_root_mounts_a_line_for_users_with_their_restrictions(machine: Station, word: str) -> None:
    fstab = machine.fstab(f"{machine.image} {machine.point} fuservice.ext4 {word}")
    assert machine.mount("-a", "-T", fstab) == (0, "", "")
    (mount,) = machine.mounted()
    assert shows(mount)[3] >= SAFE


def test_a_line_of_plain_defaults_keeps_what_holds_always(machine: Station) -> None:
    fstab = machine.fstab(f"{machine.image} {machine.point} fuservice.ext4 defaults")
    assert machine.mount("-a", "-T", fstab) == (0, "", "")
    (mount,) = machine.mounted()
    assert shows(mount)[3] == SAFE


@pytest.mark.parametrize(
    ("options", "shown"), [("user=me", SAFE), ("user=me,defaults", SAFE), ("user,defaults", SAFE | {"noexec"}),
                           ("suid,dev", SAFE), ("user,suid", {"ro", "nodev", "noexec"}), ("users,dev", {"ro", "nosuid", "noexec"})],
)  # fmt: skip
def test_suid_and_dev_hold_only_where_somebody_typed_them(machine: Station, options: str, shown: set[str]) -> None:
    """For ``user=me`` mount(8) says exec, suid and dev by itself."""
    assert (
        machine.mount("-a", "-T", machine.fstab(f"{machine.image} {machine.point} fuservice.ext4 {options}")).code == 0
    )
    (mount,) = machine.mounted()
    assert shows(mount)[3] == shown
