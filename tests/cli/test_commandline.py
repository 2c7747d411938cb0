"""The caller's words, with libfuse's quirks; nothing is opened, so nothing here needs any right."""

from __future__ import annotations

import os

import pytest

from fuservice.cli.commandline import CommandLine, CommandLineError, TypeNameError, subtype_of
from fuservice.errors import FuserviceError
from fuservice.proto import argv
from fuservice.proto.dialects import CURRENT, DRAFT

PROGRAM = "fuservicemount"


def request(*words: str) -> CommandLine:
    """Return what *words* ask for."""
    return CommandLine([PROGRAM, *words])


@pytest.mark.parametrize("words", [
    ("img", "mnt", "-t", "x"), ("-t", "x", "img", "mnt"), ("img", "-t", "x", "mnt"), ("img", "mnt", "-t", "fuse.x"),
    ("img", "mnt", "-t", "fuseblk.x"), ("-t", "x", "--", "img", "mnt"), ("-t", "x", "-f", "img", "-s", "mnt", "-d"),
    ("-t", "x", "-t", "other", "img", "mnt"), ("-o", "ro", "img", "-oa=b", "mnt", "-t", "x"),
])  # fmt: skip
def test_source_mount_point_and_type_are_found_wherever_they_stand(words: tuple[str, ...]) -> None:
    asked = request(*words)
    assert (asked.source, asked.mount_point, asked.subtype) == ("img", "mnt", "x")
    assert asked.socket_path == "/run/filesystems/x"


@pytest.mark.parametrize(("words", "source", "mount_point"), [
    ((), None, None), (("mnt",), None, "mnt"), (("a", "b", "mnt"), None, "mnt"), (("-", "mnt"), "-", "mnt"),
    (("--", "-img", "-mnt"), "-img", "-mnt"), (("", "mnt"), "", "mnt"), (("-o", "mnt"), None, None),
])  # fmt: skip
def test_the_last_word_is_the_mount_point_and_the_first_of_two_the_source(
    words: tuple[str, ...], source: str | None, mount_point: str | None
) -> None:
    asked = request("-t", "x", *words)
    assert (asked.source, asked.mount_point) == (source, mount_point)


@pytest.mark.parametrize(("fstype", "subtype"), [
    ("ext4", "ext4"), ("fuse.ext4", "ext4"), ("fuseblk.ext4", "ext4"), ("fuse.fuse.x", "fuse.x"), ("fuse", "fuse"),
    ("fuse.", ""), ("fuse.a.b", "a.b"), ("", ""), ("...", "..."), ("fuse.fuseblk.x", "fuseblk.x"),
])  # fmt: skip
def test_one_prefix_goes(fstype: str, subtype: str) -> None:
    assert subtype_of(fstype) == subtype


@pytest.mark.parametrize("fstype", ["a/b", "fuse.a/b", "/", "..", ".", "fuse..", "fuse...", "../x", "fuseblk.../etc"])
def test_a_type_names_a_socket_in_one_directory(fstype: str) -> None:
    with pytest.raises(TypeNameError, match="fs subtype cannot contain path separators") as refused:
        request("img", "mnt", "-t", fstype)
    assert refused.value.exit_code == 1


@pytest.mark.parametrize("words", [(), ("img", "mnt"), ("img", "mnt", "-t"), ("-tx", "img", "mnt"), ("--type=x",)])
def test_without_a_type_there_is_no_request(words: tuple[str, ...]) -> None:
    with pytest.raises(CommandLineError, match=r"^cannot determine filesystem type\.$"):
        request(*words)


def test_a_type_may_be_as_long_as_a_socket_allows() -> None:
    longest = "y" * (107 - len("/run/filesystems/"))
    assert request("-t", longest).socket_path.endswith(longest)
    with pytest.raises(CommandLineError, match="is too long"):
        _ = request("-t", longest + "y").socket_path
    with pytest.raises(CommandLineError, match="is too long"):
        _ = request("-t", "é" * 50).socket_path  # it is the bytes that count


# ---- what the service is told ----


@pytest.mark.parametrize(("words", "told"), [
    (("img", "mnt", "-t", "x"), ["x", "img", "mnt"]),
    (("-t", "fuse.x", "img", "-o", "ro", "mnt"), ["x", "img", "-o", "ro", "mnt"]),
    (("-t", "x", "img", "-t", "y", "mnt"), ["x", "img", "mnt"]),
    (("-t", "x", "img", "mnt", "-t"), ["x", "img", "mnt", "-t"]),
    (("-t", "x", "--", "img", "mnt"), ["x", "--", "img", "mnt"]),
    (("--timeout=9", "-t", "x", "img", "--socket-dir=/s", "mnt", "--dialect=current"), ["x", "img", "mnt"]),
    (("-t", "x", "--", "--timeout=9"), ["x", "--", "--timeout=9"]),
    (("-t", "x", "--timeout", "--socket-dir"), ["x", "--timeout", "--socket-dir"]),
])  # fmt: skip
def test_the_service_is_told_all_but_the_types_and_what_is_ours(words: tuple[str, ...], told: list[str]) -> None:
    asked = request(*words)
    assert asked.argv_words == [word.encode() for word in told]
    assert argv.decode(asked.argv_file) == asked.argv_words


@pytest.mark.parametrize("ours", [(), ("--timeout=9",), ("--timeout=9", "--socket-dir=/s", "--dialect=current")])
def test_the_file_has_room_for_what_was_typed_as_libfuses_has(ours: tuple[str, ...]) -> None:
    asked = request("img", *ours, "mnt", "-t", "x")
    strings = int.from_bytes(asked.argv_file[8:12], "big")
    assert strings == 8 + 8 * 5  # the program, img, mnt, -t, x


def test_bytes_that_are_no_utf8_reach_the_service_as_typed() -> None:
    assert request(os.fsdecode(b"\xff\xfe"), "mnt", "-t", "x").argv_words[1] == b"\xff\xfe"


@pytest.mark.parametrize(("words", "says"), [
    (["w"] * 1_030, "1031 arguments, at most 1024"), (["w" * (1 << 20)], r"\d+ bytes of arguments, at most 1048576")
])  # fmt: skip
def test_more_than_a_service_is_told_is_an_error_of_the_caller(words: list[str], says: str) -> None:
    with pytest.raises(CommandLineError, match=says) as refused:
        request("-t", "x", *words)
    assert refused.value.exit_code == 1


# ---- what is ours ----


@pytest.mark.parametrize("value", ["1", "0.5", "86400", "1e2", " 7 "])
def test_a_timeout_is_seconds(value: str) -> None:
    assert request("-t", "x", f"--timeout={value}").step_timeout == float(value)


@pytest.mark.parametrize("value", ["0", "-1", "86401", "nan", "inf", "", "1s", "1_0_x"])
def test_no_timeout_is_without_end(value: str) -> None:
    with pytest.raises(CommandLineError, match="expected seconds, more than 0 and at most 86400"):
        request("-t", "x", f"--timeout={value}")


def test_the_socket_directory_is_the_callers() -> None:
    assert request("-t", "fuse.x", "--socket-dir=/tmp/s").socket_path == "/tmp/s/x"


def test_the_dialect_is_told_or_left_open() -> None:
    assert request("-t", "x").dialect is None
    assert request("-t", "x", "--dialect=current").dialect is CURRENT
    assert request("-t", "x", "--dialect=draft").dialect is DRAFT
    with pytest.raises(FuserviceError, match="--dialect=klingon: expected current or draft"):
        request("-t", "x", "--dialect=klingon")


def test_in_the_draft_the_subtype_follows_the_last_dot_and_a_dangling_t_goes() -> None:
    asked = request("img", "mnt", "-t", "fuse.a.b", "--dialect=draft", "-t")
    assert (asked.subtype, asked.argv_words) == ("b", [b"b", b"img", b"mnt"])
