"""`fuservicemount --direct`: the helper's own server, in the same cage, and nothing left of it where it does not mount."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import corpus
from tests.support.capabilities import PROGRAMS
from tests.support.compare import compare
from tests.support.mounts import detach_all, loop_mounted, mounted
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Mount

pytestmark = pytest.mark.needs("root", "fuse", "loop", "ext4", "e2fsprogs", "installed")


def servers() -> set[int]:
    """Return the processes that are called ext4 and live, whoever started them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().split()[1:3] in (["(ext4)", "S"], ["(ext4)", "R"], ["(ext4)", "D"]):
                found.add(int(path.parent.name))
    return found


@pytest.fixture
def no_server_left() -> Iterator[None]:
    """Fail if a server lives longer than the test: nobody but its mount, or its helper, keeps it."""
    before = servers()
    yield
    wait_until(lambda: not servers() - before, "the end of the server")


@pytest.fixture
def image(tmp_path: Path, make_mount_point: Callable[[str], Path]) -> Iterator[Path]:
    """Give an image that holds a bit of everything."""
    path = tmp_path / "image"
    corpus.make(next(iter(corpus.IMAGES)), path, make_mount_point("fill"))
    yield path
    path.unlink()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_server_left")
def test_a_direct_mount_is_equal_to_the_kernels(
    image: Path, fuservicemount: Mount, make_mount_point: Callable[[str], Path]
) -> None:
    point, before = make_mount_point("direct"), servers()
    try:
        ended = fuservicemount(image, point, "-t", "ext4", "-o", "ro,suid,dev", "--direct")
        assert ended == (0, "", "")
        with loop_mounted(image, make_mount_point("kernel")) as kernels:
            result = compare(point, kernels, also=("atime_ns", "ctime_ns", "blocks", "data", "ino"))
        assert not result.differences, "\n".join(result.differences[:30])
        assert result.entries > corpus.ODD_FILES
        (server,) = servers() - before
        _is_caged(server)
    finally:
        detach_all(point)


def _is_caged(pid: int) -> None:
    """See from outside that the process has the walls that a listener's server has."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    uid = int(status["Uid"].split()[0])
    assert uid not in (0, os.getuid()) and set(status["Uid"].split()) == {str(uid)}
    assert [status[name] for name in ("Seccomp", "NoNewPrivs", "CapEff", "CapBnd")] == ["2", "1", "0" * 16, "0" * 16]
    assert status["NSpid"].split()[-1] == "1"
    for space in ("mnt", "net", "ipc", "uts", "cgroup", "pid"):
        assert os.stat(f"/proc/{pid}/ns/{space}").st_ino != os.stat(f"/proc/self/ns/{space}").st_ino  # noqa: PTH116
    assert os.listdir(f"/proc/{pid}/root") == []
    kinds = sorted(str(path.readlink()).partition(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir())
    assert kinds[0] == "/dev/fuse" and kinds[1] == "/dev/null" and kinds[3:] == ["pipe", "pipe"], kinds


@pytest.mark.usefixtures("no_server_left")
def test_what_the_server_says_of_a_bad_image_reaches_the_caller(
    tmp_path: Path, fuservicemount: Mount, mount_point: Path
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1 << 16))
    code, _, said = fuservicemount(tmp_path / "zeros", mount_point, "-t", "ext4", "--direct")
    first, second = said.splitlines()
    assert code == 1
    assert re.search(
        r"fuservicemount: ext4\[\d+\]: no ext2, ext3 or ext4 filesystem: the magic number is 0x0000", first
    )
    assert second.endswith("fuservicemount: fuse server failed mount, check dmesg/logs for details.")
    assert mounted(mount_point) is None


@pytest.mark.usefixtures("no_server_left")
@pytest.mark.parametrize(("words", "code", "says"), [
    (("-t", "nosuch"), 2, "no driver for nosuch: a direct start knows ext2, ext3, ext4"),
    (("-t", "ext4", "-o", "nosuchoption"), 1, "fuse: unknown option(s): `-o nosuchoption'"),
    (("-t", "ext4", "--direct=yes"), 1, "fuse: unknown option(s): `--direct=yes'"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, fuservicemount: Mount, mount_point: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1 << 16))
    ended = fuservicemount(tmp_path / "zeros", mount_point, "--direct", *words)
    assert ended.code == code
    assert says in ended.stderr
    assert mounted(mount_point) is None


@pytest.mark.usefixtures("no_server_left")
def test_a_missing_source_is_told_by_name(fuservicemount: Mount, mount_point: Path) -> None:
    ended = fuservicemount("/nonexistent", mount_point, "-t", "ext4", "--direct")
    assert ended.code == 1 and "/nonexistent: No such file or directory" in ended.stderr


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Give a directory that others reach: pytest's own are root's alone."""
    place = Path(tempfile.mkdtemp(prefix="fuservice-test-"))
    place.chmod(0o755)
    yield place
    for path in place.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()


@pytest.mark.needs("userns")
@pytest.mark.usefixtures("no_server_left")
def test_a_plain_user_is_refused_by_the_kernel_and_leaves_nothing(open_place: Path) -> None:
    """The cage can be built without rights, and the server speaks in it; the mount cannot be made."""
    image, point = open_place / "image", open_place / "mnt"
    subprocess.run(["mkfs.ext4", "-q", image, "4M"], check=True, capture_output=True)
    image.chmod(0o644)
    point.mkdir()
    os.chown(point, 4242, 4242)  # not the number of those who do not exist in a user namespace
    plain = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    if subprocess.run([*plain, "test", "-x", PROGRAMS / "fuservicemount"], check=False).returncode:
        pytest.skip("another user cannot reach this checkout")
    words = [os.fspath(image), os.fspath(point), "-t", "ext4", "-o", "ro", "--direct"]
    command = [*plain, os.fspath(PROGRAMS / "fuservicemount"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    # What the machine's /dev/fuse allows comes first; the kernel's answer to the mount is the other.
    assert "Operation not permitted" in done.stderr or "/dev/fuse: Permission denied" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "cannot start" not in done.stderr
    assert "cage" not in done.stderr, done.stderr


@pytest.mark.usefixtures("no_server_left")
def test_a_helper_that_is_killed_takes_its_server_along(tmp_path: Path, mount_point: Path) -> None:
    """Before it has mounted: afterwards the server lives for the mount."""
    image = tmp_path / "image"
    subprocess.run(["mkfs.ext4", "-q", image, "4M"], check=True, capture_output=True)
    before = servers()
    command: list[str | Path] = [PROGRAMS / "fuservicemount", image, mount_point, "-t", "ext4", "-o", "ro", "--direct"]
    helper = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    wait_until(lambda: helper.poll() is not None or bool(servers() - before), "a server")
    helper.send_signal(signal.SIGKILL)
    helper.wait()
    if mounted(mount_point):  # it was quicker than we: the mount is whole
        assert os.listdir(mount_point) == ["lost+found"]
        detach_all(mount_point)


@pytest.mark.usefixtures("no_server_left")
def test_the_server_ends_with_its_mount_and_outlives_its_helper(
    tmp_path: Path, fuservicemount: Mount, mount_point: Path
) -> None:
    image = tmp_path / "image"
    subprocess.run(["mkfs.ext4", "-q", image, "4M"], check=True, capture_output=True)
    before = servers()
    assert fuservicemount(image, mount_point, "-t", "ext4", "-o", "ro", "--direct") == (0, "", "")
    assert os.listdir(mount_point) == ["lost+found"]
    assert len(servers() - before) == 1
    detach_all(mount_point)


def test_a_mount_in_a_namespace_of_its_own_goes_with_it(tmp_path: Path) -> None:
    """Guard and supervisor live in it too, and do not keep it alive."""
    image, point, before = tmp_path / "image", tmp_path / "mnt", servers()
    subprocess.run(["mkfs.ext4", "-q", image, "4M"], check=True, capture_output=True)
    point.mkdir()
    words = [PROGRAMS / "fuservicemount", image, point, "-t", "ext4", "-o", "ro", "--direct"]
    script = '"$@" && ls "$0"'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, point, *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "lost+found\n", "")
    wait_until(lambda: not servers() - before, "the end of the server")
