"""The library for servers, function by function, against a helper that follows a script."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from fuservice.errors import PeerGoneError, RemoteProtocolError
from fuservice.linux import fusedev
from fuservice.proto import messages as m
from fuservice.service import CommandLine, Service
from tests.packets import golden
from tests.packets.golden import REPLY
from tests.service.script import WORDS, conversation, heard

pytestmark = pytest.mark.needs("fuse")


def line(*words: str) -> CommandLine:
    """Return parsed words."""
    with conversation() as (_, service):
        return service.parse_cmdline_opts(["tiny", *words])


# ---- what the caller typed ----


def test_the_words_are_ours_and_then_the_callers() -> None:
    with conversation([b"tiny", b"-o", b"ro", b"caf\xe9"]) as (_, service):
        assert service.args == ["tiny", "-o", "ro", "caf\udce9"]
        args = service.append_args(["fuservice-tiny", "-d"])
        assert args == ["fuservice-tiny", "-d", "-o", "ro", "caf\udce9"]
        assert service.cmdline(args) == "fuservice-tiny -d -o ro caf\udce9"
        parsed = service.parse_cmdline_opts(args)
        assert parsed.debug and parsed.flags & 1 and parsed.positional == ["caf\udce9"]


def test_a_conversation_is_on_until_it_is_released() -> None:
    with conversation() as (_, service):
        assert service.accepted
        service.release()
        assert not service.accepted
        service.destroy()
        service.destroy()


def test_what_the_caller_may_do_is_in_the_hello() -> None:
    for flags, allow_other, fuseblk in (
        (0, False, False),
        (1, True, False),
        (2, False, True),
        (0xFFFF_FFFF, True, True),
    ):
        with conversation(flags=flags) as (_, service):
            assert (service.can_allow_other(), service.can_fuseblk()) == (allow_other, fuseblk)


# ---- files ----


def test_a_file_is_asked_for_and_received(tmp_path: Path) -> None:
    image = tmp_path / "img"
    image.write_bytes(b"content")
    with conversation() as (helper, service), image.open("rb") as opened:
        helper.send(m.File(0, b"/img").encode(), opened.fileno())
        service.request_file("/img", os.O_RDONLY | os.O_CLOEXEC, 0o600, quiet=True)
        with service.receive_file("/img") as fd:
            assert os.pread(fd.fileno(), 100, 0) == b"content"
            assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        assert heard(helper, 1) == [golden.OPEN]


def test_a_block_device_is_asked_for_with_its_block_size() -> None:
    with conversation() as (helper, service):
        helper.send(m.File(errno.ENOTBLK, b"/d").encode())
        service.request_blockdev("/d", os.O_RDWR, block_size=4096)
        with pytest.raises(OSError, match="Block device required: '/d'") as error:
            service.receive_file("/d")
        assert (error.value.errno, error.value.filename) == (errno.ENOTBLK, "/d")
        assert heard(helper, 1) == [golden.OPEN_BLOCK_DEVICE]


def test_several_files_may_be_asked_for_before_the_first_is_received() -> None:
    with conversation() as (helper, service), Path(os.devnull).open() as null:
        service.request_file("/a")
        service.request_file("/b")
        helper.send(m.File(errno.EACCES, b"/a").encode())
        helper.send(m.File(0, b"/b").encode(), null.fileno())
        with pytest.raises(PermissionError):
            service.receive_file("/a")
        service.receive_file("/b").close()


def test_a_path_that_the_wire_cannot_say_is_refused_here() -> None:
    with conversation() as (_, service):
        with pytest.raises(FileNotFoundError):
            service.request_file("")
        with pytest.raises(OSError, match="at most 65536 fit in a packet") as error:
            service.request_file("x" * 70_000)
        assert error.value.errno == errno.E2BIG


def test_after_the_last_file_the_helper_can_send_no_descriptor() -> None:
    with conversation() as (helper, service):
        service.finish_file_requests()
        try:
            helper.send(REPLY, 0)
        except PermissionError:
            return
        pytest.skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")


# ---- the mount ----


def test_the_fuse_device_is_taken_once() -> None:
    with conversation() as (_, service), service.take_fusedev() as device:
        assert fusedev.is_fuse_device(device.fileno())
        with pytest.raises(OSError, match="taken already"):
            service.take_fusedev()
        service.destroy()
        assert not device.closed


@pytest.mark.parametrize("kind", [0, stat.S_IFDIR, stat.S_IFREG])
def test_a_mount_is_six_commands_in_this_order(kind: int) -> None:
    options = line("-o", "ro,allow_other,max_read=4096,fsname=a b,x-gvfs-hide,user=bob,noexec")
    with conversation() as (helper, service):
        for _ in range(6):
            helper.send(REPLY)
        service.expect_mount_format(kind)
        service.session_mount(options, "/mnt")
        assert heard(helper, 6) == [
            m.SetType(0).encode(),
            m.SetSource(b"a b").encode(),
            m.SetMountPoint(b"/mnt", kind).encode(),
            m.SetOptions(b"allow_other,max_read=4096").encode(),
            m.SetMtab(b"x-gvfs-hide,user=bob").encode(),
            m.Mount(1 | 2 | 4 | 8).encode(),
        ]


def test_without_options_a_mount_is_four_commands_and_restricts() -> None:
    with conversation() as (helper, service):
        for _ in range(4):
            helper.send(REPLY)
        service.session_mount(line("-o", "blkdev"), "/mnt")
        kind, source, _, mount = heard(helper, 4)
        assert kind == golden.SET_TYPE_BLOCK
        assert source == m.SetSource(b"tiny").encode()
        assert mount == golden.MOUNT


@pytest.mark.parametrize(
    ("good", "step"),
    [(0, "service fsopen"), (1, "service fs source"), (2, "service fs mountpoint"), (3, "service mount")],
)
def test_a_refused_step_is_an_oserror_that_names_it(good: int, step: str) -> None:
    with conversation() as (helper, service):
        for _ in range(good):
            helper.send(REPLY)
        helper.send(golden.REPLY_BUSY)
        with pytest.raises(OSError, match=step) as error:
            service.session_mount(line(), "/mnt")
        assert error.value.errno == errno.EBUSY
        service.send_goodbye(1)
        *_, last, end = heard(helper, good + 3)
        assert (last, end) == (golden.GOODBYE, b"")


def test_another_kind_of_mount_point_is_refused_here() -> None:
    with conversation() as (_, service), pytest.raises(OSError, match="expected S_IFDIR, S_IFREG or 0") as error:
        service.expect_mount_format(stat.S_IFCHR)
    assert error.value.errno == errno.EINVAL


# ---- the end ----


@pytest.mark.parametrize(("code", "sent"), [(0, 0), (1, 1), (-1, 0xFFFF_FFFF)])
def test_goodbye_carries_the_code_and_ends_the_connection(code: int, sent: int) -> None:
    with conversation() as (helper, service):
        service.send_goodbye(code)
        assert heard(helper, 2) == [m.Goodbye(sent).encode(), b""]


def test_goodbye_to_nobody_is_no_failure() -> None:
    with conversation() as (helper, service):
        helper.close()
        service.send_goodbye(0)


def test_the_exit_code_of_a_service() -> None:
    assert (Service.exit(failed=False), Service.exit(failed=True)) == (0, 1)


# ---- a helper that leaves ----


def test_a_helper_that_left_is_named_by_what_was_said_to_it() -> None:
    with conversation() as (helper, service):
        helper.close()
        with pytest.raises(PeerGoneError, match="send open command: Broken pipe"):
            service.request_file("/img")
    with conversation() as (helper, service):
        helper.close()
        with pytest.raises(PeerGoneError, match="send fsopen command: Broken pipe"):
            service.session_mount(line(), "/mnt")


def test_a_helper_that_leaves_instead_of_answering_ends_the_conversation() -> None:
    with conversation() as (helper, service):
        service.request_file("/img")
        heard(helper, 1)
        helper.shut_down()
        with pytest.raises(RemoteProtocolError, match="wrong service file reply size 0, expected 13"):
            service.receive_file("/img")


def test_the_script_is_what_it_should_be() -> None:
    with conversation() as (_, service):
        assert [os.fsencode(word) for word in service.args] == list(WORDS)
