"""An ordinary user whose helper may mount (it gets CAP_SYS_ADMIN from the test): /etc/fuse.conf, and where they may mount."""

from __future__ import annotations

import pytest

from tests.lifecycle.yard import ETC, NOBODY, RECORDS, Yard
from tests.support import kernel
from tests.support.mounts import mounted

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "installed", "nobody-python"), pytest.mark.timeout(60)]

FAILED = "fuse server failed mount, check dmesg/logs for details."


def told(yard: Yard, *words: str, name: str = "mnt", owner: int = NOBODY, mode: int = 0o755) -> list[str]:
    """Mount as nobody, in vain; return what the helper said before its last line."""
    point = yard.point(name, owner=owner, mode=mode)
    ended = yard.mount(point, *words, fstype="ext4", uid=NOBODY)
    assert ended.code == 1 and not mounted(point)
    *lines, last = [line.partition(": ")[2] for line in ended.lines]
    assert last == FAILED
    return lines


def test_a_user_mounts_on_their_own_directory_for_themselves(yard: Yard) -> None:
    point = yard.point(owner=NOBODY)
    assert yard.mount(point, fstype="ext4", uid=NOBODY) == (0, "", "")
    mount = mounted(point)
    assert mount and {"nosuid", "nodev"} <= set(mount.options.split(","))
    assert mount.super_options == f"ro,user_id={NOBODY},group_id={NOBODY}"
    with pytest.raises(PermissionError):
        (point / "file").read_bytes()  # not even root
    assert not RECORDS.is_dir() or not list(RECORDS.iterdir())
    assert [row["mount point"] for row in yard.rows("--all") if row["type"] == "ext4"] == [str(point)]


@pytest.mark.parametrize("options", ["suid", "dev", "suid,dev"])
def test_suid_and_dev_are_not_for_users(yard: Yard, options: str) -> None:
    point = yard.point(owner=NOBODY)
    ended = yard.mount(point, "-o", options, fstype="ext4", uid=NOBODY)
    said = [line.partition(": ")[2] for line in ended.lines]
    assert ended.code == 0 and said == [f"unsafe option {name} ignored" for name in options.split(",")]
    mount = mounted(point)
    assert mount and {"nosuid", "nodev"} <= set(mount.options.split(","))


def test_allow_other_needs_the_administrators_word(yard: Yard) -> None:
    refused = "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf"
    assert told(yard, "-o", "allow_other") == [refused]
    (ETC / "fuse.conf").write_text("# yes\nuser_allow_other\n")
    point = yard.point(owner=NOBODY)
    assert yard.mount(point, "-o", "allow_other", fstype="ext4", uid=NOBODY).code == 0
    assert (point / "file").read_bytes() == b"content"


def test_over_the_count_nothing_is_mounted(yard: Yard) -> None:
    others = len(yard.rows("--all"))
    (ETC / "fuse.conf").write_text(f"mount_max = {others + 1}\n")
    point = yard.point(owner=NOBODY)
    assert yard.mount(point, fstype="ext4", uid=NOBODY).code == 0
    sentence = "too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf"
    assert told(yard, name="second") == [sentence]
    assert yard.cli("umount", point).code == 0
    assert yard.mount(yard.point("third", owner=NOBODY), fstype="ext4", uid=NOBODY).code == 0


def test_what_is_wrong_in_the_file_is_told_with_its_line(yard: Yard) -> None:
    (ETC / "fuse.conf").write_text("\nmount_max = many\nallow_everything\n")
    point = yard.point(owner=NOBODY)
    ended = yard.mount(point, fstype="ext4", uid=NOBODY)
    assert ended.code == 0
    assert [line.partition(": ")[2] for line in ended.lines] == [
        "invalid mount_max = many in /etc/fuse.conf at line 2",
        "unknown parameter in /etc/fuse.conf at line 3: 'allow_everything'",
    ]


def test_the_directory_must_be_theirs_to_write(yard: Yard) -> None:
    point = yard.point("theirs")
    assert told(yard, name="theirs", owner=0) == [f"user has no write access to mountpoint {point}"]
    assert told(yard, name="theirs", owner=0, mode=0o1777) == [f"mountpoint {point} not owned by user"]
    assert told(yard, name="theirs", mode=0o555) == [f"user has no write access to mountpoint {point}"]
    assert yard.mount(yard.point("theirs", owner=0, mode=0o777), fstype="ext4", uid=NOBODY).code == 0


def test_some_filesystems_are_not_mounted_over(yard: Yard) -> None:
    point = yard.point("queue", owner=NOBODY)
    kernel.mount("mqueue", str(point), "mqueue")
    try:
        point.chmod(0o777)
        ended = yard.mount(point, fstype="ext4", uid=NOBODY)
        sentence = "mounting over filesystem type 0x19800202 is forbidden"
        assert ended.code == 1 and ended.lines[0].partition(": ")[2] == sentence
    finally:
        point.chmod(0o1777)
        kernel.umount2(str(point), kernel.MNT_DETACH)


def test_a_file_that_only_root_reads_is_not_read_for_a_user(yard: Yard) -> None:
    yard.image.chmod(0o600)
    try:
        assert told(yard) == [f"{yard.image}: Permission denied"]
    finally:
        yard.image.chmod(0o644)
