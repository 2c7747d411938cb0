"""The conversation inside this process: a server's packets lie ready, the session reads them, and the answers are looked at.

What a whole helper does with hostile servers is in tests/peers; here each handler takes each of its ways, by both mount APIs.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.errors import NoHelloError, PeerGoneError, PolicyError, RefusalError, RemoteProtocolError
from fuservice.helper.fuseconf import FuseConf
from fuservice.helper.session import Session, check_fstype, check_plain
from fuservice.linux import mountapi
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.proto.dialects import CURRENT, DRAFT
from tests.helper.inprocess import Place, owned, run
from tests.peers import wire
from tests.peers.stand import own_run
from tests.peers.wire import Wire
from tests.support.mounts import detach_all, mounted

pytestmark = pytest.mark.needs("root", "fuse")


@pytest.fixture
def place(tmp_path: Path, mount_point: Path) -> Iterator[Place]:
    """Give a place; what is mounted there is detached before anybody looks."""
    with own_run():
        yield Place(tmp_path, mount_point)
        detach_all(mount_point)


BOTH = pytest.mark.parametrize("new_api", [True, False], ids=["fsopen", "mount2"])
OK, REFUSED = wire.repl(), wire.repl(errno.EINVAL)


@BOTH
def test_an_honest_server_gets_its_mount(place: Place, *, new_api: bool) -> None:
    packets = [wire.open_(str(place.image), os.O_RDWR), *place.agreed(wire.opts("max_read=4096"), wire.mtab("x-a"))]
    held = place.hold(packets, new_api=new_api)
    assert (held.error, held.said) == (None, [])
    assert held.answers == [wire.file(0, str(place.image)), *[OK] * 6]
    assert held.mount is not None
    assert (held.mount.fstype, held.mount.source) == ("fuse.x", "source")
    assert held.mount.super_options == "rw,user_id=0,group_id=0,max_read=4096"
    (record,) = Path("/run/fuservice/mounts").iterdir()
    assert f"mount point\t{place.point}\nsource\tsource\ntype\tx\n" in record.read_text()


@BOTH
@pytest.mark.parametrize(
    "end", [b"", b"??", b"ABCD", b"NAME" + bytes(65_534)], ids=["gone", "short", "unknown", "long"]
)
def test_a_server_that_does_not_say_goodbye_loses_its_mount(place: Place, end: bytes, *, new_api: bool) -> None:
    held = place.hold(place.agreed(), new_api=new_api, goodbye=end or None)
    assert isinstance(held.error, RemoteProtocolError) and held.mount is None
    assert held.answers == [OK] * 4
    assert not Path("/run/fuservice").exists()


def test_a_bug_of_ours_unmounts_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_judge", _broken)
    with pytest.raises(ZeroDivisionError):
        place.hold(place.agreed())
    assert mounted(place.point) is None


def _broken(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(("code", "says"), [(0, "without mounting anything"), (1, "failed mount"), (2, "failed mount")])
def test_a_goodbye_without_a_mount_is_a_failure_whatever_its_code(place: Place, code: int, says: str) -> None:
    held = place.hold([], goodbye=wire.byee(code))
    assert says in str(held.error) and held.error is not None and held.error.exit_code == 1


@pytest.mark.parametrize("code", [0, 1, 2, 256])
def test_a_goodbye_after_the_mount_is_a_success_whatever_its_code(place: Place, code: int) -> None:
    held = place.hold(place.agreed(), goodbye=wire.byee(code))
    assert held.error is None and held.mount is not None


def test_refusals_are_told_and_the_conversation_goes_on(place: Place) -> None:
    wrong = [wire.open_("/etc/shadow"), wire.opts("fd=0"), wire.name("a\nb"), wire.type_(2), wire.mntp("/etc"), b"DOIT"]
    held = place.hold([*wrong, *place.agreed()])
    assert held.error is None and held.mount is not None
    assert held.answers == [wire.file(errno.EACCES, "/etc/shadow"), *[REFUSED] * 5, *[OK] * 4]
    assert len(held.said) == 6


def test_quiet_refusals_and_many_are_not_all_told(place: Place) -> None:
    quiet = [wire.open_("/etc/shadow", request=1)] * 3
    held = place.hold([*quiet, *[wire.type_(2)] * 30])
    assert held.said == ["unknown fsopen flags, 0x2"] * 20 + ["more complaints are not shown"]


@BOTH
def test_the_kernels_words_follow(place: Place, *, new_api: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(_: int) -> None:
        raise OSError(errno.EBUSY, "x")

    monkeypatch.setattr(mountapi, "fsconfig_create", create)
    monkeypatch.setattr(mountapi, "mount", lambda *_: create(0))
    monkeypatch.setattr(mountapi, "messages", lambda _: ["fuse: \x1b[2J", "second"])
    held = place.hold(place.agreed(), new_api=new_api)
    step = "creating filesystem" if new_api else "mount"
    told = "\n Error: fuse: \\x1b[2J\n Error: second" if new_api else ""
    assert held.said == [f"{step}: Device or resource busy{told}"]
    assert held.answers[-1] == wire.repl(errno.EBUSY) and held.mount is None


def test_a_malformed_request_for_a_file_is_told_whatever_its_flags(place: Place) -> None:
    held = place.hold([b"OPEN\0\0", wire.open_("", request=1)])
    assert held.answers == [wire.file(errno.EINVAL, "?")] * 2
    assert held.said == ["open command too small"] * 2


def test_fuseblk_needs_a_granted_block_device(place: Place) -> None:
    packets = [wire.type_(1), wire.name("/dev/loop0"), wire.mntp(place.point), wire.doit()]
    held = place.hold(packets)
    assert held.answers[-1] == wire.repl(errno.ENOTBLK) and held.mount is None


@BOTH
@pytest.mark.needs("loop")
def test_a_granted_block_device_is_mounted_as_fuseblk(place: Place, device: str, *, new_api: bool) -> None:
    place.image = Path(device)
    asked = [wire.bdev(device, os.O_RDWR, block=1024), wire.bdev(device, block=3), wire.open_(device)]
    packets = [wire.type_(1), wire.name("/dev/sda"), wire.mntp(place.point), wire.opts("blksize=1024"), wire.doit()]
    held = place.hold([*asked, *packets], new_api=new_api)
    assert held.error is None and held.mount is not None
    assert (held.mount.fstype, held.mount.source) == ("fuseblk.x", device)
    assert held.answers == [wire.file(0, device), wire.file(errno.EINVAL, device), wire.file(0, device), *[OK] * 5]
    detach_all(place.point)


@pytest.mark.needs("loop")
def test_a_block_size_is_given_back_where_nothing_was_mounted(place: Place, device: str) -> None:
    place.image = Path(device)
    before = subprocess.run(["blockdev", "--getbsz", device], capture_output=True, check=True).stdout
    place.hold([wire.bdev(device, os.O_RDWR, block=512)])
    assert subprocess.run(["blockdev", "--getbsz", device], capture_output=True, check=True).stdout == before


def test_flags_that_do_more_than_restrict_end_it(place: Place) -> None:
    held = place.hold(place.agreed(doit=1 << 12))
    assert isinstance(held.error, RefusalError) and held.error.exit_code == 1
    assert held.answers == [OK, OK, OK, REFUSED] and held.mount is None


def test_a_read_only_driver_is_mounted_read_only(place: Place) -> None:
    held = place.hold(place.agreed(), rules="readonly\nsource any ro")
    assert held.mount is not None and held.mount.options.startswith("ro,")
    assert held.mount.super_options.startswith("ro,")


@pytest.mark.parametrize(
    ("source", "shown"), [("a b,c", "a b,c"), ("/etc", None), ("x" * 256, None), ("x" * 255, "x" * 255)]
)
def test_the_source_is_the_servers_if_it_is_a_plain_word(place: Place, source: str, shown: str | None) -> None:
    held = place.hold([wire.type_(), wire.name(source), wire.mntp(place.point), wire.doit()])
    assert held.mount is not None and held.mount.source == (shown or str(place.image))


def test_the_source_may_be_what_the_caller_called_it(place: Place) -> None:
    held = place.hold([wire.type_(), wire.name("host:/a"), wire.mntp(place.point), wire.doit()], "-o", "fsname=host:/a")
    assert held.mount is not None and held.mount.source == "host:/a"


# ---- the opening ----


@pytest.mark.parametrize("hello", [b"", b"LAST", wire.last(2), wire.last(padding=1), b"X" * 8, wire.saft()])
def test_without_a_good_hello_nothing_is_given(place: Place, hello: bytes) -> None:
    held = place.hold([], hello=hello, goodbye=None)
    assert isinstance(held.error, RemoteProtocolError)
    assert held.answers == []


def test_a_service_that_hangs_up_is_told_from_a_silent_one(place: Place) -> None:
    gone = place.hold([], hello=b"", goodbye=None)
    assert isinstance(gone.error, NoHelloError)


def test_a_service_that_ends_without_reading_our_hello_hung_up(place: Place) -> None:
    """The kernel says ECONNRESET then, and not the end of file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def leave() -> None:
        select.select([ours], [], [], 10)
        ours.close()

    leaving = threading.Thread(target=leave)
    with FdSeqPacket(owned(theirs)) as end:
        session, close = place.session(
            end, [], new_api=True, dialect=CURRENT, uid=0, rules="", conf=FuseConf(), hello_timeout=10
        )
        leaving.start()
        error = run(session)
        leaving.join()
        close()
    assert isinstance(error, NoHelloError)


def test_silence_before_hello_ends(place: Place) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Wire(ours) as server, FdSeqPacket(owned(theirs)) as end:
        session, close = place.session(
            end, [], new_api=True, dialect=CURRENT, uid=0, rules="", conf=FuseConf(), hello_timeout=0.05
        )
        error = run(session)
        close()
        assert isinstance(error, PeerGoneError) and not isinstance(error, NoHelloError)
        assert server.receive().data == wire.saft() and server.ends()


def test_silence_later_ends(place: Place) -> None:
    held = place.hold([], "--timeout=0.05", goodbye=None, gone=False)
    assert isinstance(held.error, PeerGoneError) and "said nothing for too long" in str(held.error)


def test_who_does_not_read_is_not_waited_for(place: Place) -> None:
    held = place.hold([wire.open_("/a" * 600, request=1)] * 20, "--timeout=0.1", gone=False, little_room=True)
    assert isinstance(held.error, PeerGoneError) and "does not read what we send" in str(held.error)


def test_who_closed_its_socket_is_gone_whatever_it_left(place: Place) -> None:
    held = place.hold(place.agreed(), gone=False, closed=True, goodbye=None)
    assert isinstance(held.error, PeerGoneError) and held.mount is None


def test_the_device_is_roots_to_name_and_must_be_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSE_KERN_DEVICE", "/dev/null")
    held = place.hold([])
    assert isinstance(held.error, PolicyError) and "/dev/null: not the fuse device" in str(held.error)
    assert held.answers == []
    monkeypatch.setenv("FUSE_KERN_DEVICE", "/dev/fuse")
    assert place.hold(place.agreed()).mount is not None


def test_the_device_is_not_a_users_to_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSE_KERN_DEVICE", "/dev/null")
    assert "without mounting anything" in str(place.hold([], uid=65534).error)


# ---- an ordinary user ----


def test_a_user_gets_what_libfuse_gives_one(place: Place) -> None:
    """The checks are by the real user; access(2) asks for root here, so only the sticky bit and the flags show."""
    held = place.hold(place.agreed(doit=0), uid=65534)
    assert held.error is None and held.mount is not None and "nosuid,nodev" in held.mount.options
    assert held.said == ["unsafe option suid ignored", "unsafe option dev ignored"]
    assert not Path("/run/fuservice").exists()  # records are root's


@pytest.mark.parametrize("what", ["sticky", "too many", "allow_other"])
def test_a_user_is_refused_what_libfuse_refuses(place: Place, what: str) -> None:
    conf = FuseConf()
    more = [wire.opts("allow_other")] if what == "allow_other" else []
    if what == "sticky":
        place.point.chmod(0o1777)
    elif what == "too many":
        conf.mount_max = 0
    held = place.hold(place.agreed(*more), "-o", "allow_other", uid=65534, conf=conf)
    number = errno.EUSERS if what == "too many" else errno.EPERM
    assert wire.repl(number) in held.answers
    assert (held.mount is None) == (what != "allow_other")


# ---- the draft ----


def draft(place: Place, *more: bytes, fstype: str = "fuse.x", point: str | None = None) -> list[bytes]:
    """Return a draft server's packets."""
    mntp = b"MNTP" + os.fsencode(point or place.point) + b"\0"
    return [b"TYPE" + fstype.encode() + b"\0", wire.name(), mntp, *more, wire.doit()]


@pytest.mark.parametrize(("asked", "fstype"), [("fuse.x", "fuse.x"), ("fuse", "fuse"), ("fuse.sshfs", "fuse.x")])
def test_a_draft_server_gets_its_mount_under_no_other_s_name(place: Place, asked: str, fstype: str) -> None:
    opening = b"OPEN" + bytes(12) + os.fsencode(place.image) + b"\0"
    held = place.hold([opening, *draft(place, fstype=asked)], dialect=DRAFT)
    assert held.error is None and held.mount is not None and held.mount.fstype == fstype
    assert held.answers == [wire.file(0, str(place.image)), *[OK] * 4]


@pytest.mark.parametrize("fstype", ["tmpfs", "ext4", "fuse.a/b", "fusectl", ".x", "fuse\nx", "fuse.\x1b"])
def test_a_draft_server_mounts_fuse_and_nothing_else(place: Place, fstype: str) -> None:
    held = place.hold(draft(place, fstype=fstype), dialect=DRAFT)
    assert isinstance(held.error, RefusalError) and held.answers[-1] == REFUSED and held.mount is None


def test_a_draft_helper_ends_at_the_first_refusal_but_of_a_file(place: Place) -> None:
    asked = b"OPEN" + bytes(12) + b"/etc/shadow\0"
    held = place.hold([asked, asked, wire.name("a\nb"), wire.name()], dialect=DRAFT)
    assert held.answers == [wire.file(errno.EACCES, "/etc/shadow")] * 2 + [REFUSED]
    assert isinstance(held.error, RefusalError) and len(held.said) == 2


def test_a_draft_mount_point_is_judged_by_the_mount(place: Place, tmp_path: Path) -> None:
    place.point = tmp_path / "missing"
    held = place.hold(draft(place), dialect=DRAFT)
    assert held.answers == [OK, OK, OK, wire.repl(errno.ENOENT)]


@pytest.mark.parametrize(("code", "says"), [
    (5, "initialization failed: Input/output error"), (0, "without mounting"),
    (0xFFFF_FFFF, "initialization failed: Unknown error -1"), (1 << 31, "initialization failed: Unknown error -2147483648"),
])  # fmt: skip
def test_a_draft_goodbye_carries_an_errno(place: Place, code: int, says: str) -> None:
    assert says in str(place.hold([], dialect=DRAFT, goodbye=wire.byee(code)).error)


# ---- words ----


@pytest.mark.parametrize("word", [b"a", b"a b", "é".encode(), b"a,b=c", b"/dev/sda1", b"-n", b" "])
def test_plain_words_are_plain(word: bytes) -> None:
    assert check_plain("source", word) == word


@pytest.mark.parametrize("word", [b"\n", b"\\", b"\x7f", b"\xff", "\u2028".encode(), "\u202e".encode()])
def test_others_are_refused(word: bytes) -> None:
    with pytest.raises(RefusalError, match="control characters and backslashes are not shown in mountinfo"):
        check_plain("mount source", word)


@pytest.mark.parametrize(
    ("fstype", "subtype"), [("fuse", ""), ("fuse.x", "x"), ("fuseblk.x", "x"), ("fuse.a.b", "a.b")]
)
def test_a_draft_type_names_a_subtype(fstype: str, subtype: str) -> None:
    assert check_fstype(fstype) == subtype
