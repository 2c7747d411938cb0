"""service_main: from the socket to the unmount, for a driver that fits on a page, with the real helper and a real mount."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from fuservice.cage.plan import WALLS
from fuservice.errors import ImageError
from fuservice.fuse import abi
from fuservice.fuse.filesystem import ROOT_NODE, Attr, DirEntry, Entry, Filesystem
from fuservice.launch.child import Contained, Starter, become_server
from fuservice.linux.channel import Channel
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.linux.listener import Listener
from fuservice.service import Driver, ImageArgument, service_main
from tests.service.script import heard, open_conversation
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.mounts import mounted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from fuservice.linux.fds import Fd

pytestmark = pytest.mark.needs("root", "fuse", "installed")


class Tiny(Driver):
    """One file, "first": the first bytes of the image, as many as the option says."""

    name = "tiny"
    image = ImageArgument()
    options: ClassVar[Mapping[str, str]] = {"count": "how many bytes"}

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        assert image is not None
        self.data = os.pread(image.fileno(), int(options.get("count") or 4), 0)
        if not self.data:
            raise ImageError("the image is empty")
        return self

    def lookup(self, parent: int, name: bytes) -> Entry:
        if name != b"first":
            raise FileNotFoundError(errno.ENOENT, "no such name")
        return Entry(2, self.getattr(2))

    def getattr(self, node: int) -> Attr:
        if node == ROOT_NODE:
            return Attr(ino=1, mode=abi.S_IFDIR | 0o755, size=0)
        return Attr(ino=2, mode=abi.S_IFREG | 0o644, size=len(self.data))

    def readdir(self, node: int, handle: int, offset: int) -> list[DirEntry]:
        return [DirEntry(b"first", 2, abi.S_IFREG, 1)][offset:]

    def read(self, node: int, handle: int, offset: int, into: memoryview) -> bytes:
        return self.data[offset : offset + len(into)]


def forked(connection: FdSeqPacket, log: Path, driver: type[Driver] = Tiny) -> int:
    """Return the pid of a server for *connection*, whose output goes to *log*."""
    nobody, handover = Channel.pair()
    nobody.close()
    with connection, handover, log.open("ab") as output:
        pid = os.fork()
        if pid == 0:
            contained = Contained(lambda name: service_main(driver, [name]))
            fds = [connection.fileno(), output.fileno(), handover.fileno()]
            become_server(driver.name, fds, lambda: contained, Starter(), WALLS)
    return pid


class Ended:
    """How a mount went: the helper's exit code and words, the server's pid and log."""

    def __init__(self, code: int, said: str, pid: int, log: Path) -> None:
        self.code, self.said, self.pid, self.log = code, said, pid, log

    def server(self) -> int:
        """Wait for the server; return its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


Mounter = Callable[..., Ended]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounter]:
    """Give a function that runs fuservicemount with some words, against a server of its own."""
    (tmp_path / "sockets").mkdir()
    listener = Listener(f"{tmp_path}/sockets/tiny", 0o600)

    def run(*words: str | Path, driver: type[Driver] = Tiny) -> Ended:
        command = [PROGRAMS / "fuservicemount", "-t", "tiny", f"--socket-dir={tmp_path}/sockets", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as helper:
            pid = forked(listener.accept(), tmp_path / "log", driver)
            said, _ = helper.communicate(timeout=20)
        return Ended(helper.returncode, said, pid, tmp_path / "log")

    yield run
    listener.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give an image."""
    (tmp_path / "image").write_bytes(b"0123456789")
    return tmp_path / "image"


def test_a_driver_of_a_page_is_a_mount(mount: Mounter, image: Path, mount_point: Path) -> None:
    ended = mount(image, mount_point, "-o", "count=6,fsname=shown")
    assert (ended.code, ended.said) == (0, "")
    found = mounted(mount_point)
    assert found is not None and (found.fstype, found.source) == ("fuse.tiny", "shown")
    assert {"ro", "nosuid", "nodev"} <= set(found.options.split(","))
    assert (mount_point / "first").read_bytes() == b"012345"
    assert os.listdir(mount_point) == ["first"]
    with pytest.raises(OSError, match="Read-only"):
        (mount_point / "second").touch()
    kernel.umount2(os.fspath(mount_point))
    assert ended.server() == 0
    assert all(line.startswith("\x01status ") for line in ended.log.read_text().splitlines())


def test_an_image_that_cannot_be_served_is_one_line_and_no_mount(
    mount: Mounter, tmp_path: Path, mount_point: Path
) -> None:
    (tmp_path / "empty").touch()
    ended = mount(tmp_path / "empty", mount_point)
    assert ended.code == 1 and "failed mount" in ended.said
    assert ended.server() == 1
    assert ended.log.read_text() == "the image is empty\n"
    assert mounted(mount_point) is None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/nosuch/image", "{mnt}"], "/nosuch/image: opening file: No such file or directory"),
        (["{img}", "{mnt}", "-o", "nosuch"], "fuse: unknown option(s): `-o nosuch'\n"),
        (["{img}", "{mnt}", "-o", "fsname=" + "x" * 70_000], "fuse: mount source command: 70005 bytes, at most 65536"),
    ],
    ids=["missing image", "unknown option", "a word that fits in no packet"],
)
def test_a_wrong_word_is_one_line_and_no_mount(
    words: list[str], line: str, mount: Mounter, image: Path, mount_point: Path
) -> None:
    ended = mount(*(word.format(img=image, mnt=mount_point) for word in words))
    assert ended.code == 1
    assert ended.server() == 1
    said = ended.log.read_text()
    assert said.startswith(line) and said.count("\n") == 1
    assert mounted(mount_point) is None


def test_help_and_version_mount_nothing_and_are_no_failure(mount: Mounter, image: Path, mount_point: Path) -> None:
    ended = mount(image, mount_point, "--version")
    assert ended.code == 1  # nothing was mounted
    assert ended.server() == 0
    ended = mount(image, mount_point, "--help")
    assert ended.server() == 0
    said = ended.log.read_text()
    assert "fuservice 0." in said and "usage: SOURCE MOUNTPOINT [-o OPTIONS]; options of its own: count" in said
    assert mounted(mount_point) is None


class Broken(Tiny):
    """A driver with a bug."""

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        raise ZeroDivisionError("a bug")


def test_a_bug_in_a_driver_is_a_line_and_mounts_nothing(mount: Mounter, image: Path, mount_point: Path) -> None:
    ended = mount(image, mount_point, driver=Broken)
    assert ended.code == 1
    assert ended.server() == 70
    assert "ZeroDivisionError: a bug (test_main.py:" in ended.log.read_text()
    assert mounted(mount_point) is None


def test_a_helper_that_goes_away_ends_the_server_in_one_line(tmp_path: Path) -> None:
    helper, other = FdSeqPacket.pair()
    with helper:
        open_conversation(helper, [b"tiny", b"/img", b"/mnt"])
        pid = forked(other, tmp_path / "log")
        heard(helper, 2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert (tmp_path / "log").read_text().count("\n") == 1


def test_a_server_that_is_killed_leaves_nothing_mounted_that_answers(
    mount: Mounter, image: Path, mount_point: Path
) -> None:
    ended = mount(image, mount_point)
    os.kill(ended.pid, 9)
    assert ended.server() == -9
    with pytest.raises(OSError, match="not connected") as error:
        os.listdir(mount_point)
    assert error.value.errno == errno.ENOTCONN
    kernel.umount2(os.fspath(mount_point))
    wait_until(lambda: mounted(mount_point) is None, "the mount to be gone")


def test_started_by_hand_it_says_how_to_be_started(capfd: pytest.CaptureFixture[str]) -> None:
    assert service_main(Tiny, ["tiny"]) != 0
    said = capfd.readouterr().err
    assert "is started by a socket unit or by `fuservice listen`" in said and said.count("\n") == 1
