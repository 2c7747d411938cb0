"""/run/mount/utab: what the helper has mount(8) note of a mount, for options that only userspace knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifecycle.yard import NOBODY, UTAB, Yard
from tests.support import kernel
from tests.support.mounts import mounted

pytestmark = [pytest.mark.needs("root", "fuse", "e2fsprogs", "installed"), pytest.mark.timeout(60)]


@pytest.mark.needs("mtab")
def test_it_is_noted_as_libfuses_helper_has_it_and_goes_with_umount(yard: Yard) -> None:
    point = yard.mounted("mnt", "-o", "user=bob,x-foo=1")
    assert UTAB.read_text() == f"SRC=memtree TARGET={point} ROOT=/ OPTS=user=bob,x-foo=1\n"
    assert yard.run("umount", point) == (0, "", "")
    assert UTAB.read_text() == ""


@pytest.mark.needs("mtab")
def test_names_that_utab_must_escape_are_found_again(yard: Yard) -> None:
    point = yard.mounted(b"a b\xff", "-o", "x-foo=a b")
    assert b"TARGET=/run/yard/a\\040b\xff ROOT=/ OPTS=x-foo=a\\040b" in UTAB.read_bytes()
    assert yard.run("umount", point) == (0, "", "")
    assert UTAB.read_bytes() == b""


@pytest.mark.parametrize("words", [("-n", "-o", "x-foo=1"), ("-o", "x-foo=1", "-n"), ("-n",), ()], ids=" ".join)
def test_nothing_is_noted_if_that_was_typed_or_there_is_nothing(yard: Yard, words: tuple[str, ...]) -> None:
    yard.mounted("mnt", *words)
    assert UTAB.read_text() == ""


def test_nothing_is_noted_where_nobody_keeps_notes(yard: Yard) -> None:
    UTAB.unlink()
    try:
        assert mounted(yard.mounted("mnt", "-o", "x-foo=1"))
        assert not UTAB.exists()
    finally:
        UTAB.touch()


@pytest.mark.needs("nobody-python")
def test_nothing_is_noted_for_an_ordinary_user(yard: Yard) -> None:
    point = yard.point(owner=NOBODY)
    assert yard.mount(point, "-o", "x-foo=1", uid=NOBODY).code == 0
    assert UTAB.read_text() == ""


def test_a_mount8_that_fails_is_no_failure(yard: Yard) -> None:
    """What is mounted is mounted: here, nobody may write into /run/mount."""
    kernel.mount("tmpfs", "/run/mount", "tmpfs", 1)
    try:
        assert not Path("/run/mount/utab").exists()
        assert mounted(yard.mounted("mnt", "-o", "x-foo=1"))
    finally:
        kernel.umount2("/run/mount", kernel.MNT_DETACH)
