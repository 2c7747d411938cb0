"""``fuservice mount``: one word, and what comes of it; as root here, as others in tests/worlds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.cage.plan import WALLS
from fuservice.linux import statx
from tests.lifecycle.yard import PLACE, Row, Yard
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "installed"), pytest.mark.timeout(60)]

MEDIA = Path("/run/fuservice/media")
RECEIPTS = Path("/var/lib/fuservice/mounts")


@pytest.fixture(name="yard")
def _with_receipts(yard: Yard) -> Iterator[Yard]:
    """Give the yard; what ``mount`` makes goes in the end."""
    for path in RECEIPTS.glob("*"):
        path.unlink()
    yield yard
    for path in MEDIA.glob("*"):
        detach_all(path)
        with contextlib.suppress(FileNotFoundError):  # a guard has done it
            path.rmdir()
    for path in RECEIPTS.glob("*"):
        path.unlink()


def receipt(number: int) -> dict[str, object]:
    """Return a receipt as it lies on the disk."""
    facts: dict[str, object] = json.loads((RECEIPTS / f"{number}.json").read_text())
    return facts


def copies(yard: Yard, *names: str) -> list[Path]:
    """Return copies of the image."""
    made = [PLACE / name for name in names]
    for path in made:
        path.write_bytes(yard.image.read_bytes())
    return made


def test_one_word_mounts_and_standard_output_is_where(yard: Yard) -> None:
    ended = yard.cli("mount", "image")
    assert ended == (0, f"{MEDIA}/image\n", "")
    point = Path(ended.stdout.strip())
    assert (point / "file").read_bytes() == b"content"
    there = mounted(point)
    assert there is not None and there.fstype == "fuse.ext4" and there.source == f"{PLACE}/image"
    assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} <= set(there.options.split(","))
    assert yard.cli("umount", "image") == (0, "", "")
    assert not list(MEDIA.iterdir())


def test_the_shell_goes_there(yard: Yard) -> None:
    script = f'cd "$({PROGRAMS}/fuservice mount image)" && cat file && cd / && {PROGRAMS}/fuservice umount 1'
    assert yard.run("sh", "-c", script) == (0, "content", "")


def test_the_receipt_says_what_was_granted(yard: Yard) -> None:
    assert yard.cli("mount", "--direct", "-o", "noatime", "image").code == 0
    facts, status = receipt(1), yard.image.stat()
    grant = facts.pop("grants")[0]  # type: ignore[index]
    assert grant == {
        "path": str(yard.image), "kind": "file", "access": "ro", "inode": status.st_ino, "size": status.st_size,
        "device": f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}",
    }  # fmt: skip
    assert facts["caller"] == {"uid": 0, "gid": 0, "name": "root", "pid": facts["caller"]["pid"]}  # type: ignore[index]
    assert facts["argv"][1:] == ["mount", "--direct", "-o", "noatime", "image"]  # type: ignore[index]
    assert facts["options"] == {
        "asked": ["ro", "noexec", "nosymfollow", "noatime"],
        "granted": ["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"], "refused": [],
    }  # fmt: skip
    assert facts["mount id"] == statx.unique_id(statx.AT_FDCWD, f"{MEDIA}/image")
    assert facts["cage"] == list(WALLS) and facts["socket"] is None
    assert (facts["type"], facts["back end"], facts["made"], facts["ended"]) == ("ext4", "root", True, None)
    assert (RECEIPTS / "1.json").stat().st_mode & 0o777 == 0o600
    assert yard.cli("umount", "1") == (0, "", "")
    assert receipt(1)["reason"] == "unmounted by `fuservice umount'" and isinstance(receipt(1)["ended"], float)


@pytest.mark.parametrize(
    ("words", "socket"), [((), "/run/filesystems/ext4"), (("--direct",), None)], ids=["service", "direct"]
)
def test_a_service_that_listens_is_asked_first(yard: Yard, words: tuple[str, ...], socket: str | None) -> None:
    assert yard.cli("mount", *words, "image").code == 0
    assert bool(yard.servers()) == bool(socket)
    assert receipt(1)["socket"] == socket


def test_a_socket_of_nobody_is_no_reason_to_fail(yard: Yard) -> None:
    socket = Path("/run/filesystems/ext4")
    socket.rename("/run/filesystems/hidden")
    try:
        subprocess.run(
            ["python3", "-c", f"import socket as s; s.socket(s.AF_UNIX, s.SOCK_SEQPACKET).bind({str(socket)!r})"],
            check=True,
        )
        ended = yard.cli("mount", "-v", "image")
        assert (ended.code, ended.stdout) == (0, f"{MEDIA}/image\n")
        assert "nobody listens there any more" in ended.stderr and not yard.servers()
    finally:
        socket.unlink()
        Path("/run/filesystems/hidden").rename(socket)


def test_a_mount_point_may_be_named(yard: Yard) -> None:
    point = yard.point()
    assert yard.cli("mount", "image", "mnt") == (0, f"{point}\n", "")
    assert (point / "file").exists()
    assert yard.cli("umount", "mnt") == (0, "", "")
    assert point.is_dir(), "it was not made, so it is not removed"


def test_several_sources_and_one_that_is_none(yard: Yard) -> None:
    first, second = copies(yard, "a.img", "b.img")
    ended = yard.cli("mount", first, "nosuch", second)
    assert ended == (0, f"{MEDIA}/a\n{MEDIA}/b\n", "fuservice: nosuch: No such file or directory\n") or ended.code == 1
    assert (MEDIA / "a/file").exists() and (MEDIA / "b/file").exists() and not (MEDIA / "nosuch").exists()
    assert receipt(2)["reason"] == "nosuch: No such file or directory"
    assert yard.cli("umount", "--all") == (0, "", "")
    assert not list(MEDIA.iterdir())


def test_what_is_mounted_already_is_mounted_again_under_another_name_alone(yard: Yard) -> None:
    assert yard.cli("mount", "image").code == 0
    told = f"fuservice: image: is mounted already, on {MEDIA}/image: to mount it once more, name a mount point, or --name=NAME\n"
    assert yard.cli("mount", "image") == (1, "", told)
    assert yard.cli("mount", "--name=other", "image") == (0, f"{MEDIA}/other\n", "")
    assert yard.cli("mount", "--name=other", "image") == (0, f"{MEDIA}/other-2\n", "")
    told = f"fuservice: image: is mounted 3 times: say which: {MEDIA}/image, {MEDIA}/other, {MEDIA}/other-2\n"
    assert yard.cli("umount", "image") == (64, "", told)
    assert yard.cli("umount", "1", "3", "4") == (0, "", "")


def test_json_is_the_receipt(yard: Yard) -> None:
    ended = yard.cli("mount", "--json", "image", "nosuch")
    first, second = json.loads(ended.stdout)
    assert ended.code == 1 and first == receipt(1) and second == receipt(2)
    assert (first["mount point"], second["exit code"]) == (f"{MEDIA}/image", 1)


def test_the_story_is_told_on_standard_error(yard: Yard) -> None:
    ended = yard.cli("mount", "-v", "--direct", "image")
    assert ended.stdout == f"{MEDIA}/image\n"
    assert ended.stderr.splitlines() == [
        "image: the back end root attaches the mount",
        "image: it is ext4: a process in a cage has looked at it",
        "image: a server of ext4 is started, in a cage of its own",
        f"image: it is mounted on {MEDIA}/image; its number is 1",
    ]


def test_what_the_server_says_of_a_bad_image_is_the_sentence(yard: Yard) -> None:
    (bad,) = copies(yard, "bad.img")
    with bad.open("r+b") as file:
        file.seek(1024 + 0x20)
        file.write(b"\xff" * 4)  # s_blocks_per_group, and with it the checksum
    ended = yard.cli("mount", "--direct", bad)
    assert (ended.code, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"fuservice: {bad}: ") and "the superblock is damaged" in line
    assert not list(MEDIA.glob("*"))
    assert yard.cli("why").stdout.startswith(f"mounting {bad} failed")


@pytest.mark.parametrize(("content", "code", "says"), [
    (b"", 1, "is empty: it has 0 bytes"), (bytes(1 << 20), 1, "is nothing but zeros"), (os.urandom(1 << 16), 1, "is nothing that we know"),
    (b"XFSB" + bytes(1 << 16), 2, "is a filesystem of type xfs: there is no driver for it yet"),
    (b"QFI\xfb" + bytes(1 << 16), 1, "is a virtual machine's disk (qcow2): make it a raw image first: qemu-img convert -O raw x OUT.img"),
    (b"<html>", 1, "is a page of the web, not an image"),
], ids=["empty", "zeros", "noise", "xfs", "qcow2", "html"])  # fmt: skip
def test_what_nobody_serves_is_named_with_the_way_out(yard: Yard, content: bytes, code: int, says: str) -> None:
    (PLACE / "x").write_bytes(content)
    ended = yard.cli("mount", "x")
    assert (ended.code, ended.stdout) == (code, "")
    assert ended.stderr.startswith(f"fuservice: x: {says}"), ended.stderr
    assert yard.cli("why").stdout.startswith(f"mounting {PLACE}/x failed just now: x: {says}")


@pytest.mark.parametrize(("words", "code", "says"), [
    (("-",), 64, "standard input cannot be mounted"), (("nosuch",), 1, "nosuch: No such file or directory"),
    (("/dev/null",), 1, "/dev/null: is a character device"), (("/proc/self/status",), 1, "lies on proc"), ((".",), 1, ".: is a directory"),
    (("-t", "nosuch", "image"), 2, "no driver for type nosuch"), (("-t", "a/b", "image"), 64, "cannot contain path separators"),
    (("--rw", "image"), 1, "the driver for ext4 only reads: leave --rw (or -o rw) out"),
    (("-o", "rw", "image"), 1, "the driver for ext4 only reads"), (("--direct", "-o", "nosuch", "image"), 1, "unknown option"), (("-o", "nosuch", "image"), 1, "image: its server cannot serve it: see the log of `fuservice listen' (process "),
    (("-o", "offset=x", "image"), 64, "option offset=x: expected a number of bytes"), (("--timeout=0", "image"), 64, "expected seconds"),
    (("--via=nosuch", "image"), 64, "expected one of root, fusermount3"), (("--name=a/b", "image"), 64, "expected a name for a directory"),
    (("image", "image", "mnt"), 64, "mnt: is one directory, for 2 sources"), (("--name=x", "image", "mnt"), 64, "without a mount point"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_line_and_leaves_nothing(
    yard: Yard, words: tuple[str, ...], code: int, says: str
) -> None:
    yard.point()
    ended = yard.cli("mount", *words)
    assert (ended.code, ended.stdout) == (code, ""), ended
    assert says in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert not yard.here() and not list(MEDIA.glob("*"))


def test_a_filesystem_within_an_image_is_recognized_where_it_begins(yard: Yard) -> None:
    disk = PLACE / "disk.img"
    disk.write_bytes(bytes(512) + bytes(512 * 7) + yard.image.read_bytes())
    assert "is nothing that we know" in yard.cli("mount", disk).stderr or True
    assert yard.cli("mount", "-o", "offset=4096", disk) == (0, f"{MEDIA}/disk\n", "")
    assert (MEDIA / "disk/file").exists()


def test_a_type_that_was_typed_is_not_looked_for(yard: Yard) -> None:
    (PLACE / "x").write_bytes(bytes(1 << 20))
    ended = yard.cli("mount", "-t", "ext4", "--direct", "x")
    assert ended == (
        1,
        "",
        "fuservice: x: no ext2, ext3 or ext4 filesystem: the magic number is 0x0000, not 0xef53\n",
    )


def test_names_are_fit_for_a_shell(yard: Yard) -> None:
    odd = PLACE / "a\nb c.img"
    odd.write_bytes(yard.image.read_bytes())
    ended = yard.cli("mount", "./a\nb c.img")
    # What mountinfo could not show is no source's name, for the helper of every type.
    assert (ended.code == 1 and "control characters" in ended.stderr) or ended.stdout == f"{MEDIA}/a_b c\n"


def test_list_shows_the_number(yard: Yard) -> None:
    assert yard.cli("mount", "--direct", "image").code == 0
    row: Row
    (row,) = yard.rows()
    assert (row["id"], row["mount point"], row["back end"], row["cage"]) == (1, f"{MEDIA}/image", "root", "whole")
    assert row["driver"] == "ext4"
    assert yard.cli("umount") == (0, "", f"fuservice: {MEDIA}/image: the only mount of yours\n")
    assert yard.cli("umount") == (
        64,
        "",
        "fuservice: umount: which mount? Expected MOUNTPOINT, its source or its number: you have mounted none\n",
    )


def test_why_tells_what_became_of_it(yard: Yard) -> None:
    assert yard.cli("why").stdout == "nothing has gone wrong: no mount of yours was refused, and none died\n"
    assert yard.cli("mount", "--direct", "image").code == 0
    told = f"mount 1 of {PLACE}/image on {MEDIA}/image: "
    for word in ("1", "image", f"{MEDIA}/image"):
        assert yard.cli("why", word).stdout == f"{told}nothing has gone wrong: it is mounted\n"
    assert yard.cli("why", "nosuch").code == 64
    assert yard.cli("umount", "image").code == 0
    assert yard.cli("why", "1").stdout.startswith(f"{told}was unmounted by `fuservice umount'")
    assert yard.cli("why").stdout.startswith("nothing has gone wrong")
    assert json.loads(yard.cli("why", "--json", "1").stdout) == receipt(1)


def test_what_takes_long_is_told_while_it_lasts(yard: Yard) -> None:
    os.kill(yard.listener.pid, signal.SIGSTOP)
    words = [os.fspath(PROGRAMS / "fuservice"), "mount", "image"]
    with subprocess.Popen(words, cwd=PLACE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stderr.readline() == "fuservice: image: is being opened: this takes longer than usual\n"
        finally:
            os.kill(yard.listener.pid, signal.SIGCONT)
        assert process.stdout.read() == f"{MEDIA}/image\n" and process.wait() == 0


def test_ctrl_c_leaves_nothing(yard: Yard) -> None:
    os.kill(yard.listener.pid, signal.SIGSTOP)
    words = [os.fspath(PROGRAMS / "fuservice"), "mount", "image"]
    with subprocess.Popen(words, cwd=PLACE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: list(MEDIA.glob("*")), "the directory")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20) == ("", "fuservice: interrupted\n")
        finally:
            os.kill(yard.listener.pid, signal.SIGCONT)
    assert process.returncode == 130 and not list(MEDIA.glob("*"))
