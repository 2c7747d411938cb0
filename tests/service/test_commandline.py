"""The command line of a server: the standard options of FUSE servers, each where it belongs."""

from __future__ import annotations

import pytest

from fuservice.errors import UsageError
from fuservice.proto import layouts as w
from fuservice.service import parse_cmdline_opts
from fuservice.service.commandline import DEFAULT_FLAGS, CommandLine


def parse(*words: str, own: tuple[str, ...] = ()) -> CommandLine:
    """Sort *words*."""
    return parse_cmdline_opts(["tiny", *words], own)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ([], w.MS_NOSUID | w.MS_NODEV),
        (["-r"], DEFAULT_FLAGS | w.MS_RDONLY),
        (["-o", "ro"], DEFAULT_FLAGS | w.MS_RDONLY),
        (["-o", "ro,rw"], DEFAULT_FLAGS),
        (["-r", "-orw"], DEFAULT_FLAGS),
        (["-o", "suid"], w.MS_NODEV),
        (["-o", "dev,suid"], 0),
        (["-o", "suid", "-o", "nosuid"], DEFAULT_FLAGS),
        (["-o", "noexec,sync,dirsync"], DEFAULT_FLAGS | w.MS_NOEXEC | w.MS_SYNCHRONOUS | w.MS_DIRSYNC),
        (["-o", "noatime,nodiratime"], DEFAULT_FLAGS | w.MS_NOATIME | w.MS_NODIRATIME),
        (["-o", "relatime,strictatime"], DEFAULT_FLAGS | w.MS_RELATIME | w.MS_STRICTATIME),
        (["-o", "nosymfollow"], DEFAULT_FLAGS | w.MS_NOSYMFOLLOW),
    ],
)
def test_words_that_are_flags(words: list[str], flags: int) -> None:
    line = parse(*words)
    assert line.flags == flags
    assert (line.suid, line.dev) == (not flags & w.MS_NOSUID, not flags & w.MS_NODEV)


@pytest.mark.parametrize(
    ("option", "kernel"),
    [
        ("allow_other", ["allow_other"]),
        ("default_permissions", ["default_permissions"]),
        ("max_read=4096", ["max_read=4096"]),
        ("blksize=512", ["blksize=512"]),
        ("allow_other,ro,max_read=1", ["allow_other", "max_read=1"]),
    ],
)
def test_options_of_the_kernel(option: str, kernel: list[str]) -> None:
    assert parse("-o", option).kernel == kernel


@pytest.mark.parametrize("option", ["user", "user=bob", "x-systemd.automount", "x-y=z", "nofail"])
def test_options_of_userspace(option: str) -> None:
    assert parse("-o", option).mtab == [option]


@pytest.mark.parametrize("option", ["clone_fd", "max_threads=4", "max_idle_threads=2", "noauto", "_netdev"])
def test_options_that_mean_nothing_here_are_taken(option: str) -> None:
    line = parse("-o", option)
    assert (line.kernel, line.mtab, line.own, line.flags) == ([], [], {}, DEFAULT_FLAGS)


def test_allow_root_is_allow_other_for_the_kernel() -> None:
    line = parse("-o", "allow_root")
    assert line.allow_root and line.kernel == ["allow_other"] and not parse("-o", "allow_other").allow_root
    assert parse("-o", "auto_unmount").auto_unmount


@pytest.mark.parametrize("switch", ["-f", "-s", "-n"])
def test_switches_that_mean_nothing_here_are_taken(switch: str) -> None:
    assert parse(switch).positional == []


def test_switches_that_show_something() -> None:
    assert parse("-h").show_help and parse("--help").show_help
    assert parse("-V").show_version and parse("--version").show_version
    assert parse("-d").debug and parse("--debug").debug and parse("-odebug").debug


def test_names_and_the_kind_of_mount() -> None:
    line = parse("-o", r"fsname=a\,b,subtype=sub,blkdev")
    assert (line.fsname, line.subtype, line.fuseblk) == ("a,b", "sub", True)


def test_positional_words_are_in_order_and_a_dash_is_one() -> None:
    assert parse("a", "-o", "ro", "-", "b").positional == ["a", "-", "b"]
    assert parse("--", "-o", "-x").positional == ["-o", "-x"]
    assert parse("").positional == [""]


def test_options_of_the_servers_own_come_first() -> None:
    line = parse("-o", "greeting=hi,ro,quiet", own=("greeting", "quiet", "ro"))
    assert line.own == {"greeting": "hi", "quiet": None, "ro": None}
    assert line.flags == DEFAULT_FLAGS


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-o", "nosuch"], "-o nosuch"),
        (["-o", "nosuch=1,ro,other"], "-o nosuch=1 -o other"),
        (["-x"], "-x"),
        (["--nosuch", "-onope"], "--nosuch -o nope"),
        (["-o", "fsname="], "-o fsname="),
        (["-o", "subtype"], "-o subtype"),
        (["-o", "fd=7"], "-o fd=7"),
        (["-o", "rootmode=40000"], "-o rootmode=40000"),
        (["-o", "context=x"], "-o context=x"),
        (["-o", "bind"], "-o bind"),
        (["-o", "remount"], "-o remount"),
    ],
)
def test_every_unknown_word_is_named(words: list[str], named: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(*words).check_known()
    assert str(error.value) == f"unknown option(s): `{named}'"


@pytest.mark.parametrize("words", [["-o"], ["-o", ""], ["-o", ",,"]])
def test_no_option_is_no_option(words: list[str]) -> None:
    line = parse(*words)
    assert (line.positional, line.kernel, line.own) == ([], [], {})
