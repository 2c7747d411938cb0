"""The mount API with real mounts, in the run's private mount namespace; and openat2's rules."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from fuservice.linux import mountapi, mountinfo, opentree
from fuservice.linux.fds import Fd
from fuservice.linux.openat2 import (
    RESOLVE_NO_MAGICLINKS,
    openat2,
)
from tests.support.mounts import mounted

#: linux/openat2.h: rules that we do not use, to see that rules arrive.
RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x01, 0x04, 0x08, 0x10

needs_root = pytest.mark.needs("root")


def tmpfs(attributes: int = 0, **options: str) -> Fd:
    """Return a detached mount of a new tmpfs."""
    with mountapi.fsopen("tmpfs") as context:
        assert fcntl.fcntl(context.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        for key, value in options.items():
            mountapi.fsconfig_set(context.fileno(), key, value)
        mountapi.fsconfig_create(context.fileno())
        return mountapi.fsmount(context.fileno(), attributes)


def pin(path: Path) -> Fd:
    """Return an O_PATH descriptor of *path*."""
    return Fd(os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))


@needs_root
def test_a_mount_is_made_detached_and_attached_by_descriptor(mount_point: Path) -> None:
    with tmpfs(mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV, source="here") as mount, pin(mount_point) as at:
        assert mounted(mount_point) is None
        os.close(os.open("inside", os.O_CREAT | os.O_CLOEXEC, dir_fd=mount.fileno()))
        mountapi.move_mount(mount.fileno(), at.fileno())
        found = mounted(mount_point)
        assert found is not None
        assert (found.fstype, found.source) == ("tmpfs", "here")
        assert {"nosuid", "nodev", "rw"} <= set(found.options.split(","))
        assert [entry.name for entry in mount_point.iterdir()] == ["inside"]
        mountapi.detach(mount.fileno())
    assert mounted(mount_point) is None


@needs_root
def test_a_mount_that_was_not_attached_is_gone_when_it_is_closed(mount_point: Path) -> None:
    before = len(mountinfo.mounts())
    tmpfs().close()
    assert len(mountinfo.mounts()) == before


@needs_root
@pytest.mark.parametrize(
    ("attribute", "word"),
    [
        (mountapi.MOUNT_ATTR_RDONLY, "ro"),
        (mountapi.MOUNT_ATTR_NOEXEC, "noexec"),
        (mountapi.MOUNT_ATTR_NOATIME, "noatime"),
        (mountapi.MOUNT_ATTR_NODIRATIME, "nodiratime"),
        (mountapi.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
    ],
)
def test_attributes_are_those_of_mountinfo(mount_point: Path, attribute: int, word: str) -> None:
    with tmpfs(attribute) as mount, pin(mount_point) as at:
        mountapi.move_mount(mount.fileno(), at.fileno())
        found = mounted(mount_point)
        assert found is not None and word in found.options.split(",")
        mountapi.detach(mount.fileno())


@needs_root
def test_a_file_is_a_mount_point_too(tmp_path: Path, make_mount_point: object) -> None:
    target, source = tmp_path / "target", tmp_path / "source"
    target.write_text("below")
    source.write_text("above")
    with opentree.open_tree(opentree.AT_FDCWD, os.fspath(source), clone=True) as tree, pin(target) as at:
        mountapi.move_mount(tree.fileno(), at.fileno())
        assert target.read_text() == "above"
        mountapi.detach(tree.fileno())
    assert target.read_text() == "below"


@needs_root
def test_open_tree_finds_the_mount_below_a_descriptor(mount_point: Path) -> None:
    with tmpfs() as mount, pin(mount_point) as below:
        mountapi.move_mount(mount.fileno(), below.fileno())
    with opentree.open_tree(opentree.AT_FDCWD, os.fspath(mount_point)) as tree:
        assert fcntl.fcntl(tree.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        with opentree.open_tree(tree.fileno(), "") as same:
            assert os.path.sameopenfile(tree.fileno(), same.fileno())
            mountapi.detach(same.fileno())
    assert mounted(mount_point) is None
    with pytest.raises(FileNotFoundError) as error:
        opentree.open_tree(opentree.AT_FDCWD, f"{mount_point}/missing")
    assert error.value.filename == f"{mount_point}/missing"


@needs_root
def test_detaching_goes_by_the_descriptor_and_not_by_what_lies_there_now(mount_point: Path) -> None:
    with tmpfs(source="first") as first, tmpfs(source="second") as second, pin(mount_point) as at:
        mountapi.move_mount(first.fileno(), at.fileno())
        with pin(mount_point) as above:
            mountapi.move_mount(second.fileno(), above.fileno())
        mountapi.detach(second.fileno())
        found = mounted(mount_point)
        assert found is not None and found.source == "first"
        mountapi.detach(first.fileno())


@needs_root
def test_the_kernel_says_what_it_did_not_like() -> None:
    with mountapi.fsopen("tmpfs") as context:
        with pytest.raises(OSError, match="Invalid argument") as error:
            mountapi.fsconfig_set(context.fileno(), "nosuch", "value")
        assert error.value.errno == errno.EINVAL
        assert error.value.__notes__ == ["while calling fsconfig()"]
        assert mountapi.messages(context.fileno()) == ["tmpfs: Unknown parameter 'nosuch'"]
        assert mountapi.messages(context.fileno()) == []
        mountapi.fsconfig_set(context.fileno(), "ro")


@needs_root
def test_an_unknown_filesystem_and_a_wrong_descriptor_are_errors() -> None:
    with pytest.raises(OSError, match="No such device"):
        mountapi.fsopen("no-such-filesystem")
    with pytest.raises(OSError, match="Bad file descriptor"):
        mountapi.fsconfig_create(999_999)


@needs_root
def test_mount2_and_umount2_name_the_target(mount_point: Path) -> None:
    target = os.fspath(mount_point)
    mountapi.mount("here", target, "tmpfs", 2 | 4, "size=64k,mode=700")
    found = mounted(mount_point)
    assert found is not None and (found.source, found.fstype) == ("here", "tmpfs")
    assert "size=64k" in found.super_options and "nodev" in found.options
    with (mount_point / "busy").open("w"):
        with pytest.raises(OSError, match="busy") as busy:
            mountapi.umount2(target)
        assert busy.value.filename == target
    mountapi.umount2(target, mountapi.UMOUNT_NOFOLLOW)
    with pytest.raises(OSError, match="Invalid argument"):
        mountapi.umount2(target, mountapi.MNT_DETACH)
    with pytest.raises(FileNotFoundError) as missing:
        mountapi.mount("x", f"{target}/missing", "tmpfs", 0, "")
    assert missing.value.filename == f"{target}/missing"


# ---- openat2 ----


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a directory with a file, a link to it, a link out of it, and a directory."""
    (tmp_path / "top/inner").mkdir(parents=True)
    (tmp_path / "top/file").write_text("x")
    (tmp_path / "top/link").symlink_to("file")
    (tmp_path / "top/out").symlink_to("/proc/self/status")
    (tmp_path / "secret").write_text("s")
    return tmp_path / "top"


@pytest.mark.parametrize(
    ("path", "rule", "error"),
    [
        ("file", RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS, None),
        ("inner/../file", RESOLVE_BENEATH, None),
        ("link", 0, None),
        ("link", RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("../secret", 0, None),
        ("../secret", RESOLVE_BENEATH, errno.EXDEV),
        ("../../../../../file", RESOLVE_IN_ROOT, None),
        ("/file", RESOLVE_IN_ROOT, None),
        ("/file", RESOLVE_BENEATH, errno.EXDEV),
        ("out", RESOLVE_BENEATH, errno.EXDEV),
        ("out", RESOLVE_NO_XDEV, errno.EXDEV),
        ("out", RESOLVE_IN_ROOT, errno.ENOENT),
        ("/proc/self/exe", RESOLVE_NO_MAGICLINKS, errno.ELOOP),
        ("missing", 0, errno.ENOENT),
    ],
)
def test_openat2_resolves_under_its_rules(tree: Path, path: str, rule: int, error: int | None) -> None:
    with Fd(os.open(tree, os.O_PATH | os.O_CLOEXEC)) as top:
        if error is None:
            with openat2(path, os.O_RDONLY, rule, top.fileno()) as fd:
                assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        else:
            with pytest.raises(OSError) as refused:  # noqa: PT011  # which one is the next line
                openat2(path, os.O_RDONLY, rule, top.fileno())
            assert (refused.value.errno, refused.value.filename) == (error, path)
