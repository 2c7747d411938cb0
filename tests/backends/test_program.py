"""What fusermount3 could do that it should not: a program that sends the wrong thing, mounts in the wrong place, or hangs."""

from __future__ import annotations

import errno
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuservice.backends import fusermount
from fuservice.backends.fusermount import Fusermount
from fuservice.errors import RefusalError
from fuservice.helper.attach import Plan
from fuservice.helper.mountpoint import MountPoint
from fuservice.linux import fuseclone, fusedev
from fuservice.proto import layouts
from tests.support.mounts import mounted

pytestmark = pytest.mark.needs("root", "fuse", "fusermount3")

PROGRAM = """#!{python} -ISB
import os, socket, sys
def send(*paths):
    socket.send_fds(channel, [b"\\0"], [os.open(path, os.O_RDWR) for path in paths])
def be_fusermount3():
    os.execv("/usr/bin/fusermount3", ["fusermount3", *sys.argv[1:]])
if "-u" in sys.argv:
    be_fusermount3()
channel = socket.socket(fileno=int(os.environ["_FUSE_COMMFD"]))
os.set_inheritable(channel.fileno(), True)
"""


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give a function that puts a program with this body into the place of fusermount3."""

    def put(body: str) -> None:
        program = tmp_path / "fusermount3"
        program.write_text(PROGRAM.format(python=sys.executable) + textwrap.dedent(body))
        program.chmod(0o755)
        monkeypatch.setattr(fusermount, "find", lambda: (os.fspath(program), None))

    return put


@pytest.fixture
def plan() -> Iterator[Plan]:
    """Give a plan for a mount that nobody will serve."""
    with fusedev.open_device() as device:
        flags = layouts.MS_RDONLY | layouts.MS_NOSUID | layouts.MS_NODEV | layouts.MS_NOEXEC
        yield Plan(fuse_device=device, fuseblk=False, subtype="sub", source="a,b", flags=flags, options={})


def attach(plan: Plan, path: Path) -> str:
    """Attach *plan* on *path* in vain; return the sentence."""
    mount_point = MountPoint(os.fspath(path))
    try:
        with pytest.raises(RefusalError) as caught:
            Fusermount().attach(plan, mount_point)
    finally:
        mount_point.close()
    assert mounted(path) is None
    assert fuseclone.connection(plan.fuse_device.fileno()) is None
    return str(caught.value)


def test_a_file_is_covered(plan: Plan, tmp_path: Path) -> None:
    point = tmp_path / "-u file"
    point.write_text("covered")
    mount_point = MountPoint(os.fspath(point))
    with Fusermount().attach(plan, mount_point) as mount:
        found = mounted(point)
        assert found and (found.fstype, found.source) == ("fuse.sub", "a,b")
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(found.options.split(","))
        assert fuseclone.connection(plan.fuse_device.fileno()) == int(found.device.split(":")[1])
        mount.detach()
    mount_point.close()
    assert mounted(point) is None


def test_fuseblk_is_not_for_users(plan: Plan, mount_point: Path) -> None:
    plan.fstype = "fuseblk"
    assert attach(plan, mount_point) == "fusermount3: a mount of type fuseblk is for root alone"


@pytest.mark.parametrize(("body", "says"), [
    ("", "mount: fusermount3: ended with 0"),
    ("sys.exit('fusermount3: it is raining')", "mount: fusermount3: it is raining"),
    ("sys.exit('fusermount3: \\x1b[31mred: Permission denied')", r"mount: fusermount3: \x1b[31mred: Permission denied"),
    ("sys.exit('x' * 100000)", "mount: fusermount3: " + "x" * 200 + "…"),
    ("sys.exit(\"fusermount3: unknown option 'ro'\")", "fusermount3 does not know the option ro"),
    ("send('/dev/null')", "fusermount3 sent 1 descriptors: expected a fuse device, and that alone"),
    ("send('/dev/fuse', '/dev/null')", "fusermount3 sent 2 descriptors: expected a fuse device, and that alone"),
    ("send(*['/dev/null'] * 9)", "fusermount3 sent a packet of over 1 bytes, or with over 4 descriptors"),
    ("send('/dev/fuse'); sys.exit('fusermount3: not quite')", "fusermount3 sent 1 descriptors: expected a fuse device, and that alone"),
    ("send('/dev/fuse')", "{point}: the mount was undone at once by somebody else"),
])  # fmt: skip
def test_what_it_says_and_sends(
    instead: Callable[[str], None], plan: Plan, mount_point: Path, body: str, says: str
) -> None:
    instead(body)
    assert attach(plan, mount_point) == says.format(point=mount_point) if "{" in says else says


def test_it_cannot_be_executed(plan: Plan, mount_point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusermount, "find", lambda: ("/nonexistent/fusermount3", None))
    assert attach(plan, mount_point) == "mount: fusermount3: No such file or directory"


def test_it_hangs(
    instead: Callable[[str], None], plan: Plan, mount_point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusermount, "PATIENCE", 0.3)
    instead("import time; time.sleep(60)")
    assert "did nothing for 0 s: gave up" in attach(plan, mount_point)


def test_it_hangs_after_it_has_mounted(
    instead: Callable[[str], None], plan: Plan, mount_point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusermount, "PATIENCE", 1.0)
    instead("""
        import subprocess, time
        own, other = socket.socketpair()
        os.set_inheritable(other.fileno(), True)
        environment = {**os.environ, "_FUSE_COMMFD": str(other.fileno())}
        subprocess.run(["/usr/bin/fusermount3", *sys.argv[1:]], env=environment, pass_fds=[other.fileno()])
        time.sleep(60)
    """)
    assert "did nothing for 1 s: gave up" in attach(plan, mount_point)


def test_it_mounts_and_fails_to_say_so(instead: Callable[[str], None], plan: Plan, mount_point: Path) -> None:
    instead("""
        import subprocess
        own, other = socket.socketpair()
        environment = {**os.environ, "_FUSE_COMMFD": str(other.fileno())}
        subprocess.run(["/usr/bin/fusermount3", *sys.argv[1:]], env=environment, pass_fds=[other.fileno()], check=True)
        sys.exit("fusermount3: sending file descriptor: Broken pipe")
    """)
    assert attach(plan, mount_point) == "mount: fusermount3: sending file descriptor: Broken pipe"


def test_the_mount_point_is_exchanged_while_it_mounts(
    instead: Callable[[str], None], plan: Plan, mount_point: Path
) -> None:
    moved = mount_point.with_name("moved")
    instead(f"os.rename({str(mount_point)!r}, {str(moved)!r}); os.mkdir({str(mount_point)!r}); be_fusermount3()")
    said = attach(plan, mount_point)
    assert said == f"{mount_point}: was exchanged meanwhile: fusermount3 mounted on {moved}: unmounted"
    assert mounted(moved) is None


def test_it_mounts_somewhere_else(instead: Callable[[str], None], plan: Plan, mount_point: Path) -> None:
    other = mount_point.with_name("other")
    other.mkdir()
    instead(f"sys.argv[-1] = {str(other)!r}; be_fusermount3()")
    said = attach(plan, mount_point)
    assert said == f"{mount_point}: was exchanged meanwhile: fusermount3 mounted on {other}: unmounted"
    assert mounted(other) is None


def test_it_leaves_out_what_matters(instead: Callable[[str], None], plan: Plan, mount_point: Path) -> None:
    instead("sys.argv[2] = sys.argv[2].replace('noexec', 'exec').replace('ro', 'rw'); be_fusermount3()")
    assert attach(plan, mount_point) == "fusermount3 mounted it without ro, noexec: unmounted"


def test_the_mount_point_was_exchanged_before(plan: Plan, mount_point: Path) -> None:
    pinned = MountPoint(os.fspath(mount_point))
    mount_point.rmdir()
    mount_point.mkdir()
    with pytest.raises(RefusalError, match="was exchanged meanwhile") as caught:
        Fusermount().attach(plan, pinned)
    pinned.close()
    assert caught.value.errno == errno.ESTALE


def test_it_gets_nothing_of_our_environment_and_no_descriptor(
    instead: Callable[[str], None], plan: Plan, mount_point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    instead("""
        names = sorted(name for name in os.environ if name != "LC_CTYPE")
        sys.exit("f: " + " ".join(names) + " " + " ".join(sorted(os.listdir("/proc/self/fd"))))
    """)
    said = attach(plan, mount_point)
    assert said == "mount: fusermount3: LANG PATH _FUSE_COMMFD 0 1 2 3 4", "4 is the listing's own"


def test_libfuse_2_is_not_asked_for_what_it_would_hand_to_the_kernel(
    plan: Plan, mount_point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an option that it does not know the kernel says no more than EINVAL."""
    (tmp_path / "fusermount").symlink_to("/usr/bin/fusermount3")
    monkeypatch.setattr(fusermount, "find", lambda: (os.fspath(tmp_path / "fusermount"), None))
    plan.flags |= layouts.MS_NOSYMFOLLOW
    pinned, backend = MountPoint(os.fspath(mount_point)), Fusermount()
    with backend.attach(plan, pinned) as mount:
        assert backend.lost == ["nosymfollow"]
        mount.detach()
    pinned.close()
    assert mounted(mount_point) is None
