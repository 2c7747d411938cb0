"""The way of an ordinary user: a fresh one, in each world, from one word to nothing left."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.capabilities import PROGRAMS, REPOSITORY
from tests.support.mounts import detach_all
from tests.support.user import UID, User, fresh_user
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.needs("root", "fuse", "e2fsprogs", "userns", "fusermount3", "nobody-python"), pytest.mark.timeout(120),
]  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give the bytes of an image."""
    place = tmp_path_factory.mktemp("image")
    (place / "tree").mkdir()
    (place / "tree/file").write_bytes(b"content")
    command: list[str | Path] = ["mkfs.ext4", "-q", "-O", "^has_journal", "-d", place / "tree", place / "image", "4M"]
    subprocess.run(command, check=True, capture_output=True)
    return (place / "image").read_bytes()


@pytest.fixture
def user(image: bytes) -> Iterator[User]:
    """Give a user with an image at home, on a machine with fusermount3; nothing of theirs may be left."""
    with fresh_user() as fresh:
        fresh.make("thing.img", image)
        yield fresh
        wait_until(lambda: not fresh.left(), "nothing left", 10)


@pytest.fixture
def lonely(image: bytes) -> Iterator[User]:
    """Give the same, on a machine where nobody mounts for them."""
    with fresh_user(fusermount="hidden") as fresh:
        fresh.make("thing.img", image)
        yield fresh
        wait_until(lambda: not fresh.left(), "nothing left", 10)


def test_two_lines_without_root(user: User) -> None:
    """Those of the README, as they stand there."""
    text = (REPOSITORY / "README.md").read_text()
    (lines,) = (block for block in text.split("\n\n") if block.startswith('    cd "$(fuservice mount'))
    script = "\n".join(["set -e", *lines.splitlines(), "cd", "fuservice umount thing.img"])
    ended = user.run("sh", "-c", script)
    assert (ended.code, ended.stderr) == (0, ""), ended
    assert "file" in ended.stdout and "lost+found" in ended.stdout


def test_from_one_word_to_nothing_left(user: User) -> None:
    point = user.runtime / "fuservice/thing"
    assert user.run("fuservice", "mount", "thing.img") == (0, f"{point}\n", "")
    assert user.run("cat", point / "file") == (0, "content", "")
    (row,) = json.loads(user.run("fuservice", "list", "--json").stdout)
    assert (row["id"], row["mount point"], row["back end"], row["type"]) == (1, str(point), "fusermount3", "ext4")
    assert (row["uid"], row["driver"], row["cage"]) == (UID, "ext4", "whole")
    assert user.run("fuservice", "umount", "thing.img") == (0, "", "")
    assert not point.exists()
    told = user.run("fuservice", "why", "1").stdout
    assert told.startswith(f"mount 1 of {user.home}/thing.img on {point}: was unmounted")


def test_the_receipt_is_the_users_alone_and_says_what_is_missing(user: User) -> None:
    assert user.run("fuservice", "mount", "-o", "nosymfollow", "thing.img").code == 0
    path = user.home / ".local/state/fuservice/mounts/1.json"
    facts = json.loads(path.read_text())
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (UID, 0o600)
    assert facts["caller"]["uid"] == UID and facts["back end"] == "fusermount3"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(facts["options"]["granted"])
    assert set(facts["options"]["granted"]).isdisjoint(facts["options"]["refused"])
    assert user.run("fuservice", "umount").code == 0


@pytest.mark.parametrize("runtime", ["unset", "another's", "open to others"])
def test_without_a_runtime_directory_there_is_another_place(user: User, runtime: str) -> None:
    if runtime == "unset":
        del user.environment["XDG_RUNTIME_DIR"]
    elif runtime == "another's":
        user.environment["XDG_RUNTIME_DIR"] = "/"
    else:
        user.runtime.chmod(0o777)
    place = Path(f"/tmp/fuservice-{UID}")
    try:
        assert user.run("fuservice", "mount", "thing.img") == (0, f"{place}/thing\n", "")
        assert place.stat().st_mode & 0o7777 == 0o700 and place.stat().st_uid == UID
        assert user.run("fuservice", "umount", "thing.img") == (0, "", "")
        assert not list(place.iterdir())
    finally:
        detach_all(place / "thing")
        if place.exists():
            place.rmdir()


def test_a_place_that_somebody_else_has_taken_is_not_used(user: User) -> None:
    del user.environment["XDG_RUNTIME_DIR"]
    place = Path(f"/tmp/fuservice-{UID}")
    place.mkdir()
    try:
        ended = user.run("fuservice", "mount", "thing.img")
        assert ended.code == 1 and ended.stdout == ""
        assert (
            f"{place}: is not yours alone (owner 0, mode 755)): name a mount point, or log in so that" in ended.stderr
        )
        assert list(place.iterdir()) == []
    finally:
        place.rmdir()


def test_another_user_unmounts_nothing(user: User) -> None:
    """The kernel keeps others out of it; we say so without asking it."""
    assert user.run("fuservice", "mount", "thing.img").code == 0
    point = user.runtime / "fuservice/thing"
    stranger: list[str | Path] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    user.runtime.chmod(0o755)
    (user.runtime / "fuservice").chmod(0o755)
    words = [*stranger, PROGRAMS / "fuservice", "umount", point]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", env={"PATH": "/usr/bin:/bin"})
    user.runtime.chmod(0o700)
    (user.runtime / "fuservice").chmod(0o700)
    assert done.returncode == 1 and f"was mounted by uid {UID}" in done.stderr, done.stderr
    assert user.run("fuservice", "umount", "-a") == (0, "", "")


@pytest.mark.parametrize("name", ["a b,c.img", "ü.img", "-x.img", "b\udcff.img", "d" * 200 + "/" + "d" * 200 + "/long.img", 'q"uo$te.img', "nl\nx.img", "back\\slash.img"])  # fmt: skip
def test_odd_names_are_mounted_listed_and_unmounted(user: User, image: bytes, name: str) -> None:
    assert user.run("mkdir", "-p", Path(name).parent).code == 0
    user.make(name, image)
    ended = user.run("fuservice", "mount", "--", name)
    assert (ended.code, ended.stderr) == (0, "") and ended.stdout.count("\n") == 1
    assert "file" in user.run("ls", ended.stdout.removesuffix("\n")).stdout
    (row,) = json.loads(user.run("fuservice", "list", "--json").stdout)
    assert row["source"] == f"{user.home}/{name}"
    again = user.run("fuservice", "mount", "--", name)
    assert again.code == 1 and "is mounted already" in again.stderr
    assert user.run("fuservice", "umount", "--", name) == (0, "", "")


@pytest.mark.parametrize("how", [(), ("--private",)], ids=["for all", "private"])
def test_what_the_server_says_is_kept_in_every_world(user: User, how: tuple[str, ...]) -> None:
    point = user.runtime / "fuservice/thing"
    assert user.run("fuservice", "mount", *how, "-o", "debug", "thing.img").code == 0
    look = ("fuservice", "enter", point, "--", "ls", point) if how else ("ls", point)
    assert "file" in user.run(*look).stdout
    wait_until(lambda: "READDIR" in user.run("fuservice", "log", "1").stdout, "words")
    assert user.run("fuservice", "umount").code == 0
    log = user.home / ".local/state/fuservice/mounts/1.log"
    assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (UID, 0o600)
    assert user.run("fuservice", "log", "thing.img").stdout == user.run("fuservice", "log", "1").stdout


def test_a_server_that_has_said_nothing(user: User) -> None:
    assert user.run("fuservice", "mount", "thing.img").code == 0
    assert user.run("fuservice", "log", "thing.img") == (0, "", "its server has said nothing, mount 1\n")
    assert user.run("fuservice", "umount").code == 0


def test_a_server_that_dies_is_told_by_why(user: User) -> None:
    point = user.runtime / "fuservice/thing"
    assert user.run("fuservice", "mount", "thing.img").code == 0
    (row,) = json.loads(user.run("fuservice", "list", "--json").stdout)
    assert user.run("kill", "-9", str(row["pid"])).code == 0
    wait_until(lambda: user.run("test", "-e", point).code == 1, "the directory's end")
    wait_until(lambda: user.run("fuservice", "why").stdout.startswith("mount 1"), "the receipt")
    told = user.run("fuservice", "why").stdout
    assert re.fullmatch(rf"mount 1 of {user.home}/thing.img on {point}: ended (just now|.* ago): its server died: .*; "
                        rf"mount it again: fuservice mount {user.home}/thing.img\n", told), told  # fmt: skip


def test_busy_is_told_with_the_way_out(user: User) -> None:
    point = user.runtime / "fuservice/thing"
    assert user.run("fuservice", "mount", "thing.img").code == 0
    with user.start("sh", "-c", f"cd {point} && echo there && exec cat") as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        ended = user.run("fuservice", "umount", "thing.img")
        assert ended.code == 1 and "use -l" in ended.stderr, ended
        assert user.run("fuservice", "umount", "-l", "thing.img") == (0, "", "")
        process.kill()
    assert not point.exists()


def test_where_nobody_mounts_for_them_they_are_told_why(lonely: User) -> None:
    ended = lonely.run("fuservice", "mount", "thing.img")
    assert ended.code == 1 and ended.stdout == ""
    assert "root: " in ended.stderr and "fusermount3: " in ended.stderr and "--private" in ended.stderr, ended.stderr
    assert lonely.run("fuservice", "why").stdout.startswith(f"mounting {lonely.home}/thing.img failed")


def test_a_private_mount_is_listed_and_unmounted(lonely: User) -> None:
    point = lonely.runtime / "fuservice/thing"
    told = f"fuservice: {point}: is seen by those who enter it: fuservice enter {point}\n"
    assert lonely.run("fuservice", "mount", "--private", "thing.img") == (0, f"{point}\n", told)
    assert lonely.run("ls", point).stdout == ""
    (row,) = json.loads(lonely.run("fuservice", "list", "--json").stdout)
    assert (row["id"], row["mount point"], row["private"], row["driver"]) == (1, str(point), True, "ext4")
    assert "in a namespace of its own" in lonely.run("fuservice", "list", "--plain").stdout
    assert "nothing has gone wrong: it is mounted" in lonely.run("fuservice", "why", "thing.img").stdout
    facts = json.loads((lonely.home / ".local/state/fuservice/mounts/1.json").read_text())
    assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} == set(facts["options"]["granted"])
    assert lonely.run("fuservice", "umount", "thing.img") == (0, "", "")
    assert json.loads(lonely.run("fuservice", "list", "--json").stdout) == []


def test_what_comes_out_of_check_is_the_same_for_them(user: User) -> None:
    ended = user.run("fuservice", "check", "thing.img")
    assert ended.code == 0 and ended.stdout.startswith("thing.img: ext4, served by our driver ext4: ")
