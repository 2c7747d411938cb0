"""``fuservice list``: what is mounted, by whom it is served; right after crashes, and where a server hangs, too."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from fuservice.cage.credentials import FIRST_UID
from fuservice.drivers.ext4 import Ext4
from fuservice.drivers.memtree import Memtree
from fuservice.fuse.budget import DEFAULTS
from tests.fuse.kernelmount import served
from tests.lifecycle.yard import NOBODY, RECORDS, Yard
from tests.support import kernel
from tests.support.processes import Program
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "installed"), pytest.mark.timeout(60)]

ODD = [
    b"a b",
    b"two\nlines",
    b"back\\slash",
    b"tab\tand \x1b[31mred",
    "größer\u202e".encode(),
    b"\xff\xfe",
    b"\\134",
    b"#",
]


def test_nothing_is_said_of_nothing(yard: Yard) -> None:
    assert yard.cli("list") == (0, "nothing is mounted\n", "")
    assert yard.rows() == []


def test_a_mount_is_a_row(yard: Yard) -> None:
    before = int(time.time())
    point = yard.mounted(fstype="ext4")
    (row,) = yard.rows()
    assert row.pop("read", None) is not None
    since = row.pop("since")
    wait_until(lambda: yard.rows()[0]["budgets"], "the server's own words to be recorded")
    row["budgets"] = yard.rows()[0]["budgets"]
    budgets = json.loads(json.dumps(row.pop("budgets")))
    assert budgets.keys() == DEFAULTS.keys() and budgets["depth"] == {"limit": 4096, "peak": 0, "overruns": 0}
    assert budgets["time"]["limit"] == Ext4.limits["time"]
    assert isinstance(since, int) and before <= since <= time.time()
    options = str(row.pop("options")).split(",")
    assert {"ro", "nosuid", "nodev", "user_id=0"} <= set(options)
    assert row == {
        "mount point": str(point), "source": str(yard.image), "type": "ext4", "driver": "ext4", "uid": FIRST_UID + yard.server_of(point),
        "pid": yard.server_of(point), "cage": "whole", "unit": None,
        "socket": "/run/filesystems/ext4", "id": None, "back end": None, "private": False,
    }  # fmt: skip


def test_there_is_a_line_for_each_with_fields_between_tabs(yard: Yard) -> None:
    first, second = yard.mounted("one"), yard.mounted("the second", fstype="ext4")
    head, *lines = (line.split("\t") for line in yard.cli("list").stdout.splitlines())
    assert (head[1], head[-1]) == ("mount point", "read")
    assert [line[1] for line in lines] == [str(first), str(second)]
    assert [line[head.index("pid")] for line in lines] == [str(yard.server_of(p)) for p in (first, second)]


def test_who_has_it_read_to_him_gets_sentences(yard: Yard) -> None:
    point = yard.mounted("one", fstype="ext4")
    told = yard.cli("list", "--plain").stdout
    assert re.fullmatch(
        rf"{yard.image} is mounted on {point}, of type ext4, since [-0-9 :]+, served by process \d+\.\n", told
    )


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_odd_names_are_exact_in_json_and_harmless_in_the_table(yard: Yard, name: bytes) -> None:
    point = yard.mounted(name)
    (row,) = yard.rows()
    assert row["mount point"] == os.fspath(point)
    _, line = yard.cli("list").stdout.splitlines()
    assert line.replace("\t", "").isprintable()


def test_mounts_on_each_other_are_told_apart(yard: Yard) -> None:
    point = yard.mounted()
    (below,) = yard.rows()
    assert yard.mount(point, fstype="ext4").code == 0
    assert [(row["type"], row["socket"]) for row in yard.rows()] == [
        ("memtree", "/run/filesystems/memtree"), ("ext4", "/run/filesystems/ext4")
    ]  # fmt: skip
    assert yard.rows()[0]["pid"] == below["pid"]


def test_a_mount_that_another_hides_is_still_there(yard: Yard) -> None:
    point = yard.mounted()
    before = yard.rows()
    kernel.mount("tmpfs", str(point), "tmpfs")
    assert len(before) == 1 and yard.rows() == before


def test_records_of_what_is_gone_are_forgotten(yard: Yard) -> None:
    kept, gone = yard.mounted("kept"), yard.mounted("gone")
    (RECORDS / "README").touch()
    kernel.umount2(str(gone))
    assert len(list(RECORDS.iterdir())) == 3
    assert [row["mount point"] for row in yard.rows()] == [str(kept)]
    assert sorted(path.name for path in RECORDS.iterdir())[1:] == ["README"]


def test_records_of_another_mount_namespace_are_kept(yard: Yard, tmp_path: Path) -> None:
    """From here the kernel says that a mount which only they have does not exist."""
    point, done = yard.point(), tmp_path / "done"
    script = f'"$@" && touch {done} && exec sleep 60'
    helper = Path(__file__).resolve().parents[2] / ".venv/bin/fuservicemount"
    theirs = Program(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", helper, point, "-t", "memtree"], tmp_path / "log"
    )  # fmt: skip
    try:
        wait_until(lambda: done.exists() or theirs.ended(), "their mount")
        assert yard.rows() == []
        assert len(list(RECORDS.iterdir())) == 1
    finally:
        theirs.stop()


def test_a_mount_whose_server_was_killed_keeps_its_row(yard: Yard) -> None:
    """Where the listener cannot detach it: another mount lies upon it."""
    point = yard.mounted()
    (before,) = yard.rows()
    pid = yard.server_of(point)
    kernel.mount("upon", os.fspath(point), "tmpfs")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in yard.servers(), "the end of the server")
    (row,) = yard.rows()
    assert row == {**before, "driver": None, "uid": None, "pid": None, "read": None, "cage": None, "budgets": None}
    assert yard.cli("list").stdout.splitlines()[1].split("\t")[4:7] == ["-", "-", "-"]
    kernel.umount2(os.fspath(point))
    assert yard.cli("umount", point) == (0, "", "")
    assert yard.rows() == []


def test_a_server_that_hangs_does_not_hang_it(yard: Yard) -> None:
    point = yard.mounted()
    pid = yard.server_of(point)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert [row["pid"] for row in yard.rows()] == [pid]
    assert time.monotonic() - began < 5


def test_mounts_of_others_are_shown_if_asked_for(yard: Yard) -> None:
    ours, theirs = yard.mounted("ours"), yard.point("theirs")
    with served(theirs, Memtree({})) as server:
        assert [row["mount point"] for row in yard.rows()] == [str(ours)]
        row = next(row for row in yard.rows("--all") if row["mount point"] == str(theirs))
        assert (row["type"], row["pid"], row["since"], row["socket"]) == (None, server.pid, None, None)
        assert "\t-\t" in yard.cli("list", "--all").stdout


def test_it_counts_what_the_server_read(yard: Yard) -> None:
    point = yard.mounted(fstype="ext4")
    (before,) = yard.rows()
    assert (point / "file").read_bytes() == b"content"
    (after,) = yard.rows()
    assert isinstance(before["read"], int) and isinstance(after["read"], int) and before["read"] < after["read"]


@pytest.mark.needs("nobody-python")
def test_an_ordinary_user_sees_the_mounts_but_not_who_serves_them(yard: Yard) -> None:
    point = yard.mounted()
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    ended = yard.run(*nobody, Path(__file__).resolve().parents[2] / ".venv/bin/fuservice", "list")
    assert (ended.code, ended.stderr) == (0, "") and str(point) in ended.stdout


def test_records_are_roots_whatever_the_umask(yard: Yard) -> None:
    for place in (RECORDS, RECORDS.parent / "servers", RECORDS.parent):
        if place.is_dir():
            place.rmdir()
    assert yard.mount(yard.point(), umask=0).code == 0
    (record,) = RECORDS.iterdir()
    found = [(oct(path.stat().st_mode), path.stat().st_uid) for path in (RECORDS.parent, RECORDS, record)]
    assert found == [("0o40755", 0), ("0o40755", 0), ("0o100644", 0)]
