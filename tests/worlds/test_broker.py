"""The way of an ordinary user where the administrator has started a broker, and nobody else mounts for them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.processes import Program
from tests.support.user import User, fresh_user
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "userns", "nobody-python"), pytest.mark.timeout(120)]


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """Give a user with an image at home; nothing of theirs may be left."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"content")
    words: list[str | Path] = [
        "mkfs.ext4",
        "-q",
        "-O",
        "^has_journal",
        "-d",
        tmp_path / "tree",
        tmp_path / "image",
        "4M",
    ]
    subprocess.run(words, check=True, capture_output=True)
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    try:
        with fresh_user(fusermount="hidden") as fresh:
            broker = Program([PROGRAMS / "fuservice", "broker"], tmp_path / "log")
            try:
                wait_until(lambda: "listening on" in broker.said() or broker.ended(), "a broker that listens", 20)
                fresh.make("thing.img", (tmp_path / "image").read_bytes())
                yield fresh
                wait_until(lambda: not fresh.left(), "nothing left", 10)
            finally:
                broker.stop()
    finally:
        kernel.umount2("/run", kernel.MNT_DETACH)


def test_from_one_word_to_nothing_left(user: User) -> None:
    point = user.runtime / "fuservice/thing"
    assert user.run("fuservice", "mount", "thing.img") == (0, f"{point}\n", "")
    assert user.run("cat", point / "file") == (0, "content", "")
    (row,) = json.loads(user.run("fuservice", "list", "--json").stdout)
    assert (row["mount point"], row["back end"], row["driver"]) == (str(point), "broker", "ext4")
    facts = json.loads((user.home / ".local/state/fuservice/mounts/1.json").read_text())
    assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} == set(facts["options"]["granted"])
    with user.start("sh", "-c", f"cd {point} && echo there && exec cat") as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        ended = user.run("fuservice", "umount", "thing.img")
        assert ended.code == 1 and "-l" in ended.stderr, ended
        process.kill()
    assert user.run("fuservice", "umount", "thing.img") == (0, "", "")
    assert not point.exists()
    assert user.run("fuservice", "why", "1").stdout.startswith(
        f"mount 1 of {user.home}/thing.img on {point}: was unmounted"
    )


def test_a_server_that_dies_leaves_nothing_either(user: User) -> None:
    point = user.runtime / "fuservice/thing"
    assert user.run("fuservice", "mount", "thing.img").code == 0
    (row,) = json.loads(user.run("fuservice", "list", "--json").stdout)
    assert user.run("kill", "-9", str(row["pid"])).code == 0
    wait_until(lambda: user.run("test", "-e", point).code == 1, "the directory's end")
    wait_until(lambda: "its server died" in user.run("fuservice", "why").stdout, "the receipt")
