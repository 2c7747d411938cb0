"""Block devices: their block size, fuseblk on one, and loop devices where a manifest says so. The server is a script."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.memtree import Memtree
from fuservice.fuse.session import Session
from fuservice.linux.fds import Fd
from tests.peers import wire
from tests.peers.programs import Ended, Program
from tests.peers.server import Listening, open_conversation
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import detach_all, mounted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.lifecycle.yard import Yard
    from tests.peers.wire import Wire

pytestmark = [pytest.mark.needs("root", "fuse", "loop", "e2fsprogs", "installed"), pytest.mark.timeout(60)]


class Script:
    """One conversation with the installed helper, as the server; and the filesystem that it serves, in a child."""

    def __init__(self, helper: Program, conversation: Wire, device: Fd) -> None:
        self._helper, self._wire, self._device = helper, conversation, device

    def ask(self, packet: bytes) -> int:
        """Send a command, return the errno of its answer; the descriptor of a file that came is closed."""
        return int.from_bytes(self._wire.ask(packet)[4:8], "big")

    def take(self, packet: bytes) -> int:
        """Send a command for a file, return its descriptor, which is the caller's."""
        self._wire.send(packet)
        answer = self._wire.receive()
        (fd,) = answer.fds
        return fd

    def mount(self, source: str, point: Path, *, fuseblk: bool) -> int:
        """Ask for the mount; return the errno of the last step."""
        for packet in (wire.type_(int(fuseblk)), wire.name(source), wire.mntp(point)):
            assert self.ask(packet) == 0
        return self.ask(wire.doit())

    def goodbye(self, code: int = 0) -> Ended:
        """End the conversation."""
        self._wire.send(wire.byee(code))
        self._wire.close()
        return self._helper.ended(10)

    @contextlib.contextmanager
    def served(self, point: Path) -> Iterator[None]:
        """Serve the mount for as long as the ``with`` lasts."""
        pid = os.fork()
        if not pid:
            try:
                Session(self._device.fileno(), Memtree({"file": b"content"}), log=print).run()
            finally:
                os._exit(0)
        self._device.close()  # with a copy in this process, the mount would outlive its server
        try:
            yield
        finally:
            detach_all(point)
            wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG), "the end of the server")


@pytest.fixture
def talk(yard: Yard) -> Iterator[contextlib.ExitStack]:
    """Give what holds a conversation; ended before the yard is cleaned."""
    with contextlib.ExitStack() as stack:
        yield stack


def converse(talk: contextlib.ExitStack, source: str | Path, point: Path, *words: str, fstype: str = "x") -> Script:
    """Start the helper for *source*, and take the conversation up as its server, up to the first command."""
    listening = talk.enter_context(Listening("/run/filesystems", fstype))
    command = [PROGRAMS / "fuservicemount", source, point, "-t", fstype, *words]
    helper = talk.enter_context(Program([os.fspath(word) for word in command]))
    conversation = talk.enter_context(listening.accept())
    opening = open_conversation(conversation)
    opening.argv.close()
    device = Fd(opening.device.fds[0])
    talk.callback(device.close)
    return Script(helper, conversation, device)


def block_size(device: str) -> int:
    """Return the device's block size, as blockdev(8) has it."""
    done = subprocess.run(["blockdev", "--getbsz", device], capture_output=True, text=True, check=True)
    return int(done.stdout)


def loops_over(file: Path) -> list[str]:
    """Return the loop devices over *file*."""
    done = subprocess.run(
        ["losetup", "--noheadings", "-O", "NAME", "-j", file], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_fuseblk_mounts_a_granted_device_that_is_listed_with_its_server(
    yard: Yard, talk: contextlib.ExitStack, loop: str
) -> None:
    point = yard.point()
    script = converse(talk, loop, point)
    assert script.ask(wire.bdev(loop, os.O_RDWR, block=1024)) == 0
    assert script.mount(loop, point, fuseblk=True) == 0
    with script.served(point):
        assert script.goodbye() == (0, "", "")
        mount = mounted(point)
        assert mount and (mount.fstype, mount.source) == ("fuseblk.x", loop)
        assert (point / "file").read_bytes() == b"content"
        (row,) = yard.rows()
        assert (row["source"], row["type"]) == (loop, "x") and row["pid"] is not None
        assert yard.cli("umount", point) == (0, "", "")
        assert not mounted(point)


def test_a_server_that_holds_the_device_to_itself_cannot_have_it_mounted(
    yard: Yard, talk: contextlib.ExitStack, loop: str
) -> None:
    point = yard.point()
    script = converse(talk, loop, point)
    held = script.take(wire.bdev(loop, os.O_RDWR | os.O_EXCL))
    try:
        assert script.mount(loop, point, fuseblk=True) == errno.EBUSY
        assert script.goodbye(1).code == 1
    finally:
        os.close(held)
    assert not mounted(point)


@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_the_block_size_is_set_and_given_back_where_nothing_is_mounted(
    yard: Yard, talk: contextlib.ExitStack, loop: str, size: int
) -> None:
    holder = os.open(loop, os.O_RDONLY)  # with the last opener, the kernel forgets a block size by itself
    try:
        before = block_size(loop)
        script = converse(talk, loop, yard.point())
        held = script.take(wire.bdev(loop, os.O_RDWR, block=size))
        assert block_size(loop) == size
        ended = script.goodbye(1)
        os.close(held)
        assert ended.code == 1 and block_size(loop) == before == 4096
    finally:
        os.close(holder)


@pytest.mark.parametrize("size", [1, 511, 768, 8192, 1 << 31])
def test_no_other_block_size_is_set(yard: Yard, talk: contextlib.ExitStack, loop: str, size: int) -> None:
    script = converse(talk, loop, yard.point())
    assert script.ask(wire.bdev(loop, os.O_RDWR, block=size)) == errno.EINVAL
    assert script.goodbye(1).lines[0].endswith(f"block size {size}, expected one of (512, 1024, 2048, 4096)")


def test_fuseblk_needs_a_device_that_was_granted(yard: Yard, talk: contextlib.ExitStack, loop: str) -> None:
    point = yard.point()
    script = converse(talk, yard.image, point)
    assert script.ask(wire.bdev(str(yard.image))) == errno.ENOTBLK
    assert script.ask(wire.bdev(loop)) == errno.EACCES
    assert script.mount(loop, point, fuseblk=True) == errno.ENOTBLK
    assert script.goodbye(1).code == 1 and not mounted(point)


@pytest.mark.parametrize("words", [(), ("-o", "ro")], ids=["rw", "ro"])
def test_a_file_is_a_device_for_a_type_whose_manifest_says_so_as_long_as_it_is_mounted(
    yard: Yard, talk: contextlib.ExitStack, tmp_path: Path, words: tuple[str, ...]
) -> None:
    file, point = tmp_path / "file", yard.point()
    file.write_bytes(b"first".ljust(1 << 20, b"\0"))
    script = converse(talk, file, point, *words, fstype="looprw")
    (device,) = loops_over(file)
    if words:
        assert script.ask(wire.bdev(str(file), os.O_RDWR)) == errno.EROFS
    with open(script.take(wire.bdev(str(file), os.O_RDONLY if words else os.O_RDWR)), "rb", buffering=0) as opened:  # noqa: PTH123
        assert opened.read(5) == b"first"
        assert os.fstat(opened.fileno()).st_rdev == os.stat(device).st_rdev  # noqa: PTH116
    assert script.mount(str(file), point, fuseblk=False) == 0
    with script.served(point):
        ended = script.goodbye()
        assert ended.code == 0
        mount = mounted(point)
        assert mount and mount.source == str(file)
    wait_until(lambda: not loops_over(file), "the end of the loop device")


def test_a_loop_device_goes_where_nothing_is_mounted(yard: Yard, talk: contextlib.ExitStack, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 20))
    script = converse(talk, file, yard.point(), fstype="loopro")
    assert script.ask(wire.bdev(str(file))) == 0 and loops_over(file)
    assert script.goodbye(1).code == 1
    wait_until(lambda: not loops_over(file), "the end of the loop device")
