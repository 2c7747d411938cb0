"""What a server says of the mount: its words are judged, and none of them reaches the kernel or a terminal as it is."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from tests.peers import wire
from tests.peers.stand import FAILED, SAYS, Stand, Step

pytestmark = pytest.mark.needs("root", "fuse")

REFUSED = wire.repl(errno.EINVAL)
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def refused(stand: Stand, packet: bytes, *words: str, error: int = errno.EINVAL) -> str:
    """Send *packet*; assert that it is refused and that the helper says one sentence about it; return the sentence."""
    with stand.conversation(*words) as talk:
        talk.open().play([(wire.type_(), wire.repl()), (packet, wire.repl(error))])
        ended = talk.goodbye()
    assert (ended.code, ended.stdout, ended.lines[1:]) == (1, "", [FAILED])
    assert ended.stderr.replace("\n", "").isprintable()
    return ended.lines[0].removeprefix(SAYS)


SOURCES = {
    "a newline": b"a\nfake / /etc rw - ext4 /dev/sda rw", "a carriage return": b"a\rb", "a tab": b"a\tb",
    "an escape": ESCAPE.encode(), "a backslash": b"a\\040b", "a bell": b"\x07", "a delete": b"\x7f",
    "a right-to-left override": "\u202ecod.elif".encode(), "a zero-width space": "\u200b".encode(),
    "a line separator": "\u2028".encode(), "bytes that are not UTF-8": b"\xff\xfe", "a C1 control": "\x9b2J".encode(),
    "a surrogate": b"\xed\xa0\x80",
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_that_could_forge_a_line_is_refused(stand: Stand, source: bytes) -> None:
    assert "control characters and backslashes are not shown in mountinfo" in refused(stand, wire.name(source))


@pytest.mark.parametrize("what", SOURCES.values(), ids=SOURCES)
def test_mtab_options_that_could_forge_a_line_are_refused(stand: Stand, what: bytes) -> None:
    assert "control characters and backslashes" in refused(stand, wire.mtab(b"x-note=" + what))


@pytest.mark.parametrize("source", ["/etc/passwd", "/dev/sda1", "host:/export", "//host/share", "a/b", "x" * 60_000])
def test_a_source_that_the_caller_did_not_type_is_shown_as_what_they_typed(stand: Stand, source: str) -> None:
    with stand.conversation() as talk:
        talk.open().agree(source=source)
        assert talk.goodbye(0) == (0, "", "")
    assert stand.settle().source == (source if "/" not in source and len(source) < 256 else str(stand.image))


@pytest.mark.parametrize("word", ["{}/image", "{}", "/etc", "x", "fuservicemount", "{}/mnt/", "{}/./mnt", "mnt", "-t"])
def test_nothing_but_the_mount_point_to_the_byte_is_mounted_on(stand: Stand, word: str) -> None:
    word = word.format(stand.place)
    sentence = refused(stand, wire.mntp(word, 0))
    if word in (str(stand.image), "x"):
        assert sentence == f"{word}: the mount point is the last argument, `{stand.point}', and no other"
    else:
        assert sentence == "mount point must be in command line arguments"


def test_no_option_of_the_callers_is_mounted_on(stand: Stand) -> None:
    assert "and no other" in refused(stand, wire.mntp("/etc"), "-o", "/etc")


KINDS = {0o020000: "weird expected format 020000", 0o040755: "weird expected format 040755",
         0o120000: "weird expected format 0120000", 0xFFFF: "weird expected format 0177777"}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_mount_point_is_a_directory_or_a_file(stand: Stand, kind: int) -> None:
    assert refused(stand, wire.mntp(stand.point, kind)).endswith(KINDS[kind])


def test_a_mount_point_of_the_wrong_kind_is_refused(stand: Stand) -> None:
    assert refused(stand, wire.mntp(stand.point, wire.REG), error=errno.EISDIR).endswith("Is a directory")


@pytest.mark.parametrize("padding", [1, 0x8000, 0xFFFF])
def test_padding_is_zero(stand: Stand, padding: int) -> None:
    assert refused(stand, wire.mntp(stand.point, wire.DIR, padding)) == "nonzero value in padding field"


POINTS = {"missing": errno.ENOENT, "link": errno.ELOOP, "fifo": errno.EACCES, "socket": errno.EACCES,
          "/dev/null": errno.EACCES}  # fmt: skip


@pytest.mark.parametrize("name", POINTS)
def test_a_place_that_is_no_mount_point_is_not_mounted_on(stand: Stand, name: str) -> None:
    place = stand.place / name
    if name == "link":
        place.symlink_to("/etc")
    elif name == "fifo":
        os.mkfifo(place)
    elif name == "socket":
        os.mknod(place, 0o140600)
    with stand.conversation(point=place) as talk:
        talk.open().play([(wire.mntp(place, 0), wire.repl(POINTS[name]))])
        ended = talk.goodbye()
    assert ended.code == 1 and len(ended.lines) == 2 and ended.lines[0].startswith(f"{SAYS}{place}: ")
    if not name.startswith("/"):
        place.unlink(missing_ok=True)


OPTIONS = [
    "fd=0", "fd=3", "rootmode=40000", "user_id=1000", "group_id=0", "subtype=ext4", "source=/etc", "blksize=512",
    'context="system_u:object_r:etc_t:s0"', "fscontext=x", "defcontext=x", "rootcontext=x", "ro", "suid", "dev", "rw",
    "max_read=0", "max_read=-1", "max_read=99999999999", "max_read=", "max_read", "max_read=0x10", "max_read=4096 ",
    "max_read=\u0663", "default_permissions=1", "allow_other=1", "=", "default_permissions,fd=0", "f\\d=0", "fd\\=0",
    "max_read=4096\\,fd=0", ",,fd=0,,", "dax", "no_control", ESCAPE, "a\nb", "'fd=0'", "x" * 65_000,
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=lambda text: repr(text[:30]))
def test_no_option_but_the_four_reaches_the_kernel(stand: Stand, options: str) -> None:
    sentence = refused(stand, wire.opts(options))
    assert sentence.startswith("mount option `") and len(sentence) < 300  # a peer's word is cut after 200


@pytest.mark.parametrize("words", [(), ("-o", "ro"), ("-o", "fsname=allow_other")])
def test_others_are_let_in_by_the_caller_alone(stand: Stand, words: tuple[str, ...]) -> None:
    sentence = refused(stand, wire.opts("allow_other"), *words, error=errno.EPERM)
    assert sentence == "the fuse server asks for allow_other, which was not typed: add -o allow_other"


MTAB = [
    "X-mount.mode=0777", "X-mount.owner=65534", "X-mount.mkdir", "x-mount.mkdir", "X-mount.subdir=etc", "loop",
    "loop=/dev/loop0", "offset=1", "bind", "remount", "move", "suid", "user", "user=mallory", "users", "owner",
    "uhelper=evil", "helper=evil", "x-note,X-mount.mkdir", "x-note\\,X-mount.mkdir,loop", "-i", "--bind", "verity.oemdata",
]  # fmt: skip


@pytest.mark.parametrize("options", MTAB)
def test_mount8_is_told_nothing_that_it_acts_on(stand: Stand, options: str) -> None:
    refusal = refused(stand, wire.mtab(options))
    assert refusal.startswith("mtab option") and len(refusal) <= 201


@pytest.mark.parametrize("typed", ["user=bob", "user=bob,x-a", "x-a,nofail,user=bob"])
def test_who_may_unmount_is_the_callers_word(stand: Stand, typed: str) -> None:
    with stand.conversation("-o", typed) as talk:
        talk.open().play([(wire.mtab("user=bob,x-note"), wire.repl())])
        assert talk.goodbye().lines == [FAILED]


@pytest.mark.needs("mtab")
def test_notes_are_written_down_and_nobody_waits_for_the_server(stand: Stand) -> None:
    utab = Path("/run/mount/utab")
    utab.parent.mkdir()
    utab.touch()
    with stand.conversation() as talk:
        talk.open().agree(doit=None)
        talk.play([(wire.mtab("x-note=1,nofail"), wire.repl()), (wire.doit(), wire.repl())])
        began = time.monotonic()
        assert talk.goodbye(0).code == 0
        assert time.monotonic() - began < 3
    assert "x-note=1" in utab.read_text()
    for path in utab.parent.iterdir():
        path.unlink()
    utab.parent.rmdir()
    stand.settle()


TWICE = [wire.type_(), wire.name(), wire.opts("max_read=4096"), wire.mtab("x-a")]


@pytest.mark.parametrize("packet", TWICE, ids=lambda packet: packet[:4].decode())
def test_what_was_said_is_not_said_otherwise(stand: Stand, packet: bytes) -> None:
    with stand.conversation() as talk:
        talk.open().play([(packet, wire.repl()), (packet, REFUSED)])
        ended = talk.goodbye()
    assert ended.code == 1 and "respecified" in ended.lines[0] and ended.lines[1:] == [FAILED]


TERMINAL: dict[str, Step] = {
    "OPEN": (wire.open_(ESCAPE), wire.file(errno.EACCES, ESCAPE)),
    "BDEV": (wire.bdev(ESCAPE), wire.file(errno.EACCES, ESCAPE)),
    "NAME": (wire.name(ESCAPE), REFUSED),
    "MNTP": (wire.mntp(ESCAPE), REFUSED),
    "OPTS": (wire.opts(ESCAPE), REFUSED),
    "MTAB": (wire.mtab(ESCAPE), REFUSED),
    "a long path": (wire.open_("/a" * 30_000), wire.file(errno.EACCES, "/a" * 30_000)),
}


@pytest.mark.parametrize("step", TERMINAL.values(), ids=TERMINAL)
def test_no_word_of_a_server_moves_the_cursor_or_fills_the_screen(stand: Stand, step: Step) -> None:
    with stand.conversation() as talk:
        talk.open().play([step])
        ended = talk.goodbye()
    assert len(ended.lines) == 2 and all(line.isprintable() and len(line) < 330 for line in ended.lines)
