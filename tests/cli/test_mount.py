"""``fuservice mount`` in words: which word is what, what a directory is called, what is said where something is odd."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuservice.cli import made, mount, recognize, why
from fuservice.cli.attempt import Attempt
from fuservice.cli.main import main
from fuservice.errors import EXIT_FAILURE, EXIT_USAGE, FuserviceError, PolicyError, SystemCallError, UsageError
from fuservice.launch import receipts
from fuservice.launch.child import Contained
from fuservice.linux import mountinfo

caged = pytest.mark.needs("root", "userns")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Return exit code and complaint of a command that must fail and print nothing."""
    code = main(words)
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def test_the_last_word_is_a_mount_point_if_it_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    a, point = os.fspath(tmp_path / "a"), os.fspath(tmp_path)
    assert mount.split([a]) == ([a], None)
    assert mount.split([point]) == ([point], None)  # the source is refused, and told what it is
    assert mount.split([a, point]) == ([a], point)
    assert mount.split([a, f"{point}/link"]) == ([a], f"{point}/link")
    assert mount.split([a, a]) == ([a, a], None)
    assert mount.split([a, "nosuch"]) == ([a, "nosuch"], None)
    with pytest.raises(UsageError, match="is one directory, for 2 sources: mount one after the other, or leave it out"):
        mount.split([a, a, point])
    with pytest.raises(
        UsageError, match="mount: -: standard input cannot be mounted, since filesystems are read here and there"
    ):
        mount.split(["-"])


def test_a_dead_mount_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: object) -> None:
        raise OSError(errno.ENOTCONN, "dead")

    monkeypatch.setattr(os, "stat", dead)
    with pytest.raises(SystemCallError, match="mnt: a mount is there whose server has died: fuservice umount mnt"):
        mount.split(["a.img", "mnt"])


@pytest.mark.parametrize(("words", "says"), [
    (["--name=a", "x", "y"], "mount: --name is for one source without a mount point"),
    (["--private", "--via=root", "x"], "mount: --private is --via=namespace, and not --via=root"),
    (["--name=", "x"], "mount: --name=: expected a name for a directory"),
    (["--timeout=never", "x"], "mount: --timeout=never: expected seconds, more than 0 and at most 86400"),
])  # fmt: skip
def test_words_that_make_no_sense_together(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = said(capsys, "mount", *words)
    assert code == EXIT_USAGE and err.startswith(f"fuservice: {says}")


def test_umount_all_goes_without_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "umount", "--all", "x") == (EXIT_USAGE, "fuservice: umount: --all goes without words\n")


@pytest.mark.parametrize(("source", "name"), [
    ("thing.img", "thing"), ("/a/b/Thing.ISO", "Thing"), ("/dev/sdb1", "sdb1"), ("a.tar", "a.tar"), (".img", ".img"), ("..", "image"),
    ("a.b.img", "a.b"), ("a\nb\x1b\\c.img", "a_b__c"), ("x" * 300, "x" * 200), ("ü" * 150, "ü" * 100), ("/", "image"), ("-v.img", "-v"),
])  # fmt: skip
def test_a_directory_is_called_after_its_source(source: str, name: str) -> None:
    assert made.name_for(source) == name


@given(st.text(min_size=1, max_size=300))
def test_whatever_a_source_is_called_its_directory_has_a_plain_name(source: str) -> None:
    name = made.name_for(source)
    assert name not in ("", ".", "..") and "/" not in name and name.isprintable() and len(os.fsencode(name)) <= 200


def test_directories_are_made_until_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "places", lambda: [os.fspath(tmp_path / "here")])
    monkeypatch.setattr(made, "MOST_OF_A_NAME", 3)
    assert [os.path.basename(made.make("x")) for _ in range(3)] == ["x", "x-2", "x-3"]  # noqa: PTH119
    assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == 0o700
    with pytest.raises(PolicyError, match="has 3 directories called x: name a mount point"):
        made.make("x")
    (tmp_path / "here/x-2/file").touch()
    for name in ("x", "x-2", "x-3"):
        made.remove(f"{tmp_path}/here/{name}")
    assert os.listdir(tmp_path / "here") == ["x-2"], "what is in use stays"
    made.remove(f"{tmp_path}/elsewhere/x")


@pytest.mark.parametrize("spoil", [
    lambda path: path.symlink_to("/tmp"), lambda path: path.touch(), lambda path: (path.mkdir(), path.chmod(0o777)),
], ids=["link", "file", "open to others"])  # fmt: skip
def test_a_place_that_is_not_ours_alone_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: object
) -> None:
    assert callable(spoil)
    monkeypatch.setattr(made, "places", lambda: [os.fspath(tmp_path / "here")])
    spoil(tmp_path / "here")
    with pytest.raises(PolicyError, match=r"there is no directory of your own to mount in .*: is not yours alone"):
        made.make("x")


def typed(**more: object) -> argparse.Namespace:
    """Return options as the command line makes them."""
    return argparse.Namespace(**{"options": [], "rw": False, "verbose": False, "type": None, **more})


def test_what_was_typed_comes_after_the_defaults() -> None:
    attempt = Attempt("x", typed(options=["exec,offset=5", r"a=b\,c"]))
    assert attempt.option_words() == r"ro,noexec,nosymfollow,exec,offset=5,a=b\,c"
    assert not attempt.writable and attempt.offset() == 5
    assert Attempt("x", typed(rw=True)).writable
    assert not Attempt("x", typed(options=["rw,ro"])).writable


def test_a_service_that_does_not_say_why_is_named() -> None:
    attempt, nothing = (
        Attempt("x.img", typed()),
        FuserviceError("fuse server failed mount, check dmesg/logs for details."),
    )
    attempt.served_by("/run/filesystems/ext4")
    assert str(attempt.explain(nothing)) == (
        "x.img: its server cannot serve it: the log of /run/filesystems/ext4 says why, and so does --direct"
    )
    attempt.complain("ext4[12]: its magic is wrong")
    assert str(attempt.explain(nothing)) == "x.img: its magic is wrong"
    assert str(attempt.explain(FuserviceError("something else"))) == "something else"


@caged
@pytest.mark.parametrize("serve", [lambda _name: 3, lambda _name: os.write(3, b"no word of ours") and 0, lambda _name: 1 // 0], ids=["silent", "a lie", "a bug"])  # fmt: skip
def test_a_probe_that_fails_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: object) -> None:
    """Whatever the process in the cage says, it is one of our words or a failure."""
    assert callable(serve)
    (tmp_path / "x").touch()
    monkeypatch.setattr(recognize, "_load", lambda: Contained(serve))
    with (
        recognize.open_source(os.fspath(tmp_path / "x")) as source, recognize.Probe(source, "x") as probe,
        pytest.raises(SystemCallError, match="x: the process that looks into it has failed: "),
    ):  # fmt: skip
        probe.word()


def test_why_without_a_receipt(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "directory", lambda: os.fspath(tmp_path))
    code, err = said(capsys, "why", "nosuch")
    assert code == EXIT_USAGE
    assert (
        err
        == "fuservice: why: nosuch: no receipt is about it: receipts are kept of what `fuservice mount' was asked for\n"
    )


@pytest.mark.parametrize(("facts", "says"), [
    ({"exit code": 1, "reason": "no", "ended": -7200.0}, "mounting /x.img failed 2 hours ago: no"),
    ({"ended": -1.5, "reason": "its server died: killed"}, "mount 7 of /x.img on /m: ended 1 second ago: its server died: killed; mount it again: fuservice mount /x.img"),
    ({"ended": -90.0, "reason": "unmounted"}, "mount 7 of /x.img on /m: was unmounted 1 minute ago"),
    ({"ended": None, "boot": "before"}, "mount 7 of /x.img on /m: the machine was started anew since; mount it again: fuservice mount /x.img"),
    ({"ended": None, "boot": None}, "mount 7 of /x.img on /m: is gone, and nobody has recorded why: somebody has unmounted it, or its namespace ended; "
                                    "mount it again: fuservice mount /x.img"),
])  # fmt: skip
def test_what_became_of_it_is_a_sentence(facts: receipts.Facts, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "boot", lambda: None)
    monkeypatch.setattr(mountinfo, "mounts", list)
    if isinstance(ended := facts.get("ended"), float):
        facts = {**facts, "ended": time.time() + ended}
    assert why.sentence({"id": 7, "mount point": "/m", "path": "/x.img", "boot": None, **facts}) == says


def test_a_source_that_cannot_be_opened_is_told_as_the_helper_tells_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "directory", lambda: os.fspath(tmp_path))
    missing = os.fspath(tmp_path / "missing")
    assert said(capsys, "mount", missing) == (EXIT_FAILURE, f"fuservice: {missing}: No such file or directory\n")
    assert os.listdir(tmp_path) == ["1.json"]
