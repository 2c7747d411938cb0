"""Grants: a look-up on the caller's bytes, a pinned inode behind each, and no more rights than were typed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.cli.commandline import CommandLine
from fuservice.errors import RefusalError
from fuservice.helper.grants import MOST_OPENS, Grants
from fuservice.helper.manifest import SOURCE, Manifest, Rule, parse
from tests.support import kernel


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give a file to grant."""
    path = tmp_path / "image"
    path.write_bytes(b"image\n")
    return path


@contextlib.contextmanager
def granted(*words: str | Path, rules: str = "source any rw") -> Iterator[Grants]:
    """Have the grants for a command line."""
    grants = Grants(CommandLine(["p", "-t", "x", *map(str, words)]), parse(rules, "m"))
    try:
        yield grants
    finally:
        grants.close()
        grants.close()


def refused(grants: Grants, path: str | Path, flags: int = os.O_RDONLY, *, block_device: bool = False) -> RefusalError:
    """Return the refusal of opening *path*."""
    with pytest.raises(RefusalError) as caught:
        grants.find(os.fsencode(path)).open(flags, block_device=block_device).close()
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


def test_a_hit_is_a_fresh_description_of_the_file(image: Path) -> None:
    with granted(image, "mnt") as grants, grants.find(os.fsencode(image)).open(os.O_RDWR, block_device=False) as fd:
        assert os.pread(fd.fileno(), 10, 0) == b"image\n"
        assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK) == os.O_RDWR
        assert not os.get_inheritable(fd.fileno())


@pytest.mark.parametrize("words", [("mnt",), ("a", "b", "mnt"), ()])
def test_without_a_source_nothing_is_granted(words: tuple[str, ...]) -> None:
    with granted(*words) as grants:
        assert grants.source is None and not grants.source_is_block_device
        for word in (*words, "", "None"):
            assert refused(grants, word).errno == errno.EACCES


def test_options_are_granted_by_the_manifest(image: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(b"journal")
    words = (image, "mnt", "-o", f"log=no,log={journal},key={image}.key")
    with granted(*words, rules="source file ro\noption log file rw\noption key any rw\noption none any rw") as grants:
        grants.find(os.fsencode(journal)).open(os.O_RDWR, block_device=False).close()
        assert refused(grants, image, os.O_RDWR).errno == errno.EROFS
        assert refused(grants, f"{image}.key").errno == errno.ENOENT
        assert refused(grants, "no").errno == errno.EACCES


def test_one_file_named_twice_keeps_the_first_rule(image: Path) -> None:
    with granted(image, "mnt", "-o", f"log={image}", rules="source file ro\noption log file rw") as grants:
        assert refused(grants, image, os.O_RDWR).errno == errno.EROFS


@pytest.mark.parametrize("words", [("-o", "ro"), ("-r",)])
def test_read_only_is_read_only_for_every_grant(image: Path, words: tuple[str, ...]) -> None:
    with granted(image, "mnt", *words) as grants:
        assert refused(grants, image, os.O_RDWR).errno == errno.EROFS
    with granted(image, "mnt", rules="readonly\nsource any rw") as grants:
        assert refused(grants, image, os.O_RDWR).errno == errno.EROFS


@pytest.mark.parametrize(("kind", "says"), [("block", "is a regular file, expected a block device"), ("file", "")])
def test_the_kind_is_the_manifests(image: Path, kind: str, says: str) -> None:
    with granted(image, "mnt", rules=f"source {kind} ro") as grants:
        if says:
            assert says in str(refused(grants, image))
        else:
            grants.find(os.fsencode(image)).open(os.O_RDONLY, block_device=False).close()


def test_a_file_is_no_block_device(image: Path) -> None:
    with granted(image, "mnt") as grants:
        assert refused(grants, image, block_device=True).errno == errno.ENOTBLK
        assert not grants.source_is_block_device


def test_after_four_there_is_no_fifth(image: Path) -> None:
    with granted(image, "mnt") as grants:
        for _ in range(MOST_OPENS):
            grants.find(os.fsencode(image)).open(os.O_RDONLY, block_device=False).close()
        assert refused(grants, image).errno == errno.EMFILE


def test_what_is_refused_does_not_count(image: Path) -> None:
    with granted(image, "mnt") as grants:
        for _ in range(10):
            assert refused(grants, image, os.O_WRONLY).errno == errno.EACCES
        grants.find(os.fsencode(image)).open(os.O_RDONLY, block_device=False).close()


@pytest.mark.parametrize(
    "flags", [os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_PATH, os.O_DIRECTORY, os.O_DIRECT, 1 << 30]
)
def test_flags_that_do_more_than_read_and_write_are_never_granted(image: Path, flags: int) -> None:
    with granted(image, "mnt") as grants:
        for access in (os.O_RDONLY, os.O_RDWR):
            assert refused(grants, image, access | flags).errno == errno.EACCES


@pytest.mark.parametrize("flags", [os.O_CLOEXEC, os.O_NOCTTY, os.O_NONBLOCK, os.O_EXCL, os.O_NOFOLLOW, 0o100000])
def test_flags_that_change_nothing_are_allowed(image: Path, flags: int) -> None:
    with granted(image, "mnt") as grants:
        grants.find(os.fsencode(image)).open(os.O_RDWR | flags, block_device=False).close()


def test_what_is_not_the_pinned_inode_is_not_given(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with granted(image, "mnt") as grants:
        monkeypatch.setattr(grants.find(os.fsencode(image)), "_status", Path("/").stat())
        assert "changed while it was opened" in str(refused(grants, image))


def test_the_pin_is_the_inode_not_the_name(image: Path) -> None:
    with granted(image, "mnt") as grants:
        image.unlink()
        image.write_bytes(b"another")
        with grants.find(os.fsencode(image)).open(os.O_RDONLY, block_device=False) as fd:
            assert os.pread(fd.fileno(), 10, 0) == b"image\n"


@pytest.mark.needs("root")
def test_the_callers_permissions_are_asked_again(image: Path) -> None:
    """What was changed between pin and open counts: here by a user who loses the right."""
    image.chmod(0o600)
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            code = _as_nobody(image)
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EACCES


def _as_nobody(image: Path) -> int:
    with granted(image, "mnt") as grants:
        os.setresuid(65534, 65534, 65534)
        try:
            grants.find(os.fsencode(image)).open(os.O_RDONLY, block_device=False)
        except RefusalError as refusal:
            return refusal.errno
    return 0


@pytest.mark.parametrize(("name", "number", "says"), [
    ("missing", errno.ENOENT, "No such file or directory"), ("fifo", errno.EACCES, "is a FIFO, expected a regular file"),
    ("directory", errno.EISDIR, "is a directory, expected a regular file"), ("image/x", errno.ENOTDIR, "Not a directory"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_told_when_it_is_asked_for(
    image: Path, tmp_path: Path, name: str, number: int, says: str
) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with granted(tmp_path / name, "mnt") as grants:
        for _ in range(2):
            refusal = refused(grants, tmp_path / name)
            assert refusal.errno == number and says in str(refusal)
        assert not grants.source_is_block_device
        grants.restore()


def test_files_of_the_kernel_are_handles_not_data() -> None:
    with granted("/proc/version", "mnt") as grants:
        assert "lies on proc: its files are handles on the kernel" in str(refused(grants, "/proc/version"))


@pytest.mark.needs("root")
def test_what_cannot_be_opened_for_writing_is_the_kernels_to_refuse(mount_point: Path) -> None:
    kernel.mount("tmpfs", str(mount_point), "tmpfs", 0, "mode=755")
    (mount_point / "image").touch()
    kernel.mount("none", str(mount_point), flags=32 | 1)  # MS_REMOUNT | MS_RDONLY
    with granted(mount_point / "image", "mnt") as grants:
        assert refused(grants, mount_point / "image", os.O_RDWR).errno == errno.EROFS


@pytest.mark.parametrize("link", ["exe", "root/etc/passwd", "cwd/image", "fd/0"])
def test_no_link_of_proc_is_followed(image: Path, link: str) -> None:
    path = f"/proc/self/{link}"
    with granted(path, "mnt") as grants:
        assert refused(grants, path).errno == errno.ELOOP


def test_an_ordinary_link_of_the_callers_is_followed(image: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("image")
    with granted(link, "mnt") as grants:
        grants.find(os.fsencode(link)).open(os.O_RDONLY, block_device=False).close()
        assert refused(grants, image).errno == errno.EACCES  # what it leads to was not typed


def test_a_path_of_bytes_is_found_by_its_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
    with granted(os.fsdecode(path), "mnt") as grants:
        grants.find(path).open(os.O_RDONLY, block_device=False).close()


# ---- block devices ----


@pytest.mark.needs("root", "loop")
def test_a_block_device_is_opened_exclusively_where_the_server_asks(device: str) -> None:
    with granted(device, "mnt") as grants:
        assert grants.source_is_block_device
        with grants.find(device.encode()).open(os.O_RDWR | os.O_EXCL, block_device=True):
            assert refused(grants, device, os.O_RDWR | os.O_EXCL).errno == errno.EBUSY
            grants.find(device.encode()).open(os.O_RDONLY, block_device=True).close()


@pytest.mark.needs("root", "loop")
def test_a_block_size_is_set_and_given_back(device: str) -> None:
    with granted(device, "mnt") as grants:
        grant = grants.find(device.encode())
        with grant.open(os.O_RDWR, block_device=True) as fd:
            before = _block_size(device)
            for size in (512, 1024, 2048):
                grant.set_block_size(fd, size)
                assert _block_size(device) == size
            for size in (0, 1, 513, 3000, 8192, 1 << 31):
                with pytest.raises(RefusalError, match=f"block size {size}, expected one of"):
                    grant.set_block_size(fd, size)
            grants.restore()
            assert _block_size(device) == before


@pytest.mark.needs("root", "loop")
def test_a_device_that_somebody_claimed_keeps_their_block_size(device: str) -> None:
    with granted(device, "mnt") as grants:
        grant = grants.find(device.encode())
        with grant.open(os.O_RDWR, block_device=True) as fd:
            grant.set_block_size(fd, 512)
            claimed = os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
            grants.restore()
            assert _block_size(device) == 512
            os.close(claimed)


def _block_size(device: str) -> int:
    return int(subprocess.run(["blockdev", "--getbsz", device], check=True, capture_output=True, text=True).stdout)


@pytest.mark.needs("root", "loop")
def test_a_file_is_no_device_to_set_a_block_size_on(image: Path) -> None:
    with granted(image, "mnt") as grants:
        grant = grants.find(os.fsencode(image))
        with grant.open(os.O_RDONLY, block_device=False) as fd, pytest.raises(RefusalError, match="setting block size"):
            grant.set_block_size(fd, 512)


@pytest.mark.needs("root", "loop")
@pytest.mark.parametrize("access", ["ro", "rw"])
def test_a_file_becomes_a_device_where_the_driver_needs_one(tmp_path: Path, access: str) -> None:
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(1 << 20)
    with granted(backing, "mnt", rules=f"source loop {access}") as grants:
        assert grants.source_is_block_device
        with grants.find(os.fsencode(backing)).open(os.O_RDONLY, block_device=True) as fd:
            name = os.readlink(f"/proc/self/fd/{fd.fileno()}")  # noqa: PTH115
            assert name.startswith("/dev/loop")
            assert (Path("/sys/block") / Path(name).name / "loop/backing_file").read_text().strip() == str(backing)
    assert not (Path("/sys/block") / Path(name).name / "loop").exists()  # gone with its last opener


def test_a_manifest_may_grant_nothing(image: Path) -> None:
    grants = Grants(CommandLine(["p", "-t", "x", str(image), "mnt"]), Manifest({}))
    assert refused(grants, image).errno == errno.EACCES
    grants.close()


def test_the_source_has_the_empty_name() -> None:
    assert SOURCE == "" and Rule("any", writable=True).writable
