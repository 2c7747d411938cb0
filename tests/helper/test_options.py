"""Options of the caller decide; options of a server are judged: what passes is what was meant to."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuservice.errors import RefusalError
from fuservice.helper.options import Options, check_kernel_options, check_mtab_options
from fuservice.proto import layouts

BASE = layouts.MS_NOSUID | layouts.MS_NODEV


def typed(*words: str) -> Options:
    """Return the options of *words*."""
    options = Options()
    for word in words:
        options.add(word)
    return options


@pytest.mark.parametrize(("words", "restrictions"), [
    ((), BASE), (("ro",), BASE | 1), (("rw",), BASE), (("ro,rw",), BASE), (("rw", "ro"), BASE | 1),
    (("suid",), layouts.MS_NODEV), (("dev",), layouts.MS_NOSUID), (("suid,dev",), 0), (("suid,nosuid",), BASE),
    (("noexec,nosymfollow",), BASE | layouts.MS_NOEXEC | layouts.MS_NOSYMFOLLOW), (("noexec,exec",), BASE),
    (("noatime,sync,dirsync,nodiratime",), BASE), (("ro=1",), BASE | 1), (("fsname=ro",), BASE), (("r\\o",), BASE | 1),
])  # fmt: skip
def test_what_protects_the_caller_holds_whatever_the_server_says(words: tuple[str, ...], restrictions: int) -> None:
    options = typed(*words)
    assert options.restrictions == restrictions
    assert options.read_only == bool(restrictions & 1)


def test_the_last_value_counts_and_any_mention_is_one() -> None:
    options = typed("a=1,b", "a=2,c=", "d=x=y")
    assert [options.value(name) for name in "abcde"] == ["2", None, "", "x=y", None]
    assert "b" in options and "e" not in options and "a=1" not in options


# ---- what a server may set ----


def kernel(raw: str, *words: str, fuseblk: bool = False, root: bool = True) -> list[tuple[str, str | None]]:
    """Return the pairs that reach the kernel."""
    options = check_kernel_options(raw.encode(), typed(*words), may_allow_other=root, fuseblk=fuseblk)
    return sorted(options.items())


@pytest.mark.parametrize(("raw", "pairs"), [
    ("default_permissions", [("default_permissions", None)]), ("max_read=1", [("max_read", "1")]),
    ("max_read=4294967295", [("max_read", "4294967295")]), ("max_read=007", [("max_read", "7")]),
    (",,max_read=8192,,default_permissions,", [("default_permissions", None), ("max_read", "8192")]),
    ("max_read=1,max_read=2", [("max_read", "2")]), ("", []), ("max_\\read=5", [("max_read", "5")]),
])  # fmt: skip
def test_what_is_on_the_list_reaches_the_kernel(raw: str, pairs: list[tuple[str, str | None]]) -> None:
    assert kernel(raw) == pairs


@pytest.mark.parametrize("word", ["allow_other", "allow_root", "ro,allow_other"])
def test_others_see_the_mount_if_the_caller_said_so(word: str) -> None:
    assert kernel("allow_other", word) == [("allow_other", None)]


@pytest.mark.parametrize("word", ["", "ro", "fsname=allow_other", "allow_others"])
def test_others_see_no_mount_that_was_not_typed_for_them(word: str) -> None:
    with pytest.raises(RefusalError, match="which was not typed: add -o allow_other") as refused:
        kernel("allow_other", word)
    assert refused.value.errno == errno.EPERM


@pytest.mark.parametrize(("name", "word"), [("allow_other", "allow_other"), ("allow_root", "allow_root")])
def test_others_see_no_mount_of_a_user_who_may_not(name: str, word: str) -> None:
    with pytest.raises(RefusalError, match=f"option {name} only allowed if 'user_allow_other' is set") as refused:
        kernel(name, word, root=False)
    assert refused.value.errno == errno.EPERM


def test_the_block_size_is_for_block_devices() -> None:
    assert kernel("blksize=1024", fuseblk=True) == [("blksize", "1024")]
    for raw, fuseblk in (("blksize=1024", False), ("blksize=511", True), ("blksize=65537", True), ("blksize", True)):
        with pytest.raises(RefusalError) as refused:
            kernel(raw, fuseblk=fuseblk)
        assert refused.value.errno == errno.EINVAL


ALLOWED = {"default_permissions", "allow_other", "allow_root", "max_read", "blksize"}


@given(st.binary(max_size=60), st.booleans(), st.booleans())
def test_whatever_a_server_says_the_kernel_hears_the_list_or_nothing(raw: bytes, fuseblk: bool, root: bool) -> None:  # noqa: FBT001
    try:
        options = check_kernel_options(raw, typed("allow_other"), may_allow_other=root, fuseblk=fuseblk)
    except RefusalError:
        return
    for name, value in options.items():
        assert name in ALLOWED and (value is None or (value.isdigit() and value.isascii()))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_whatever_a_server_says_mount8_hears_notes_or_nothing(raw: str) -> None:
    try:
        passed = check_mtab_options(raw.encode(), typed("user=bob"))
    except RefusalError:
        return
    for word in passed.decode().replace("\\", "").split(","):
        assert not word or word.startswith("x-") or word in ("-n", "nofail", "user=bob")


@pytest.mark.parametrize("raw", ["user=bob", "x-a=1,x-b", "nofail", "-n", "user=bob,x-systemd.requires=a", ""])
def test_notes_are_passed_on_as_they_are(raw: str) -> None:
    assert check_mtab_options(raw.encode(), typed("user=bob")) == raw.encode()


@pytest.mark.parametrize(
    "raw", ["user=eve", "user", "x-mount.mkdir", "X-mount.owner=0", "loop", "x-a,bind", "bind\\,x-a"]
)
def test_what_mount8_acts_on_is_refused(raw: str) -> None:
    with pytest.raises(RefusalError, match="is not one that a fuse server may set"):
        check_mtab_options(raw.encode(), typed("user=bob"))
