"""What the driver does with a sound image: against debugfs and the tree it was made from, and at the edges of each method."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.drivers.ext4.filesystem import BYTES_PER_LOOKUP, Ext4Filesystem
from fuservice.fuse.filesystem import FOREVER, ROOT_NODE
from tests.drivers.ext4.images import MIB, mke2fs, served, small_image
from tests.drivers.ext4.view import Mounted, Served, View, errors, survey

pytestmark = pytest.mark.needs("e2fsprogs")

LAYOUTS = {
    "ext2": "-t ext2 -b 1024",
    "ext3-2k": "-t ext3 -b 2048",
    "ext4": "-t ext4 -b 4096",
    "ext4-inline": "-t ext4 -b 4096 -I 256 -O inline_data",
    "ext4-blocks": "-t ext4 -b 1024 -O ^extent,^64bit",
    "ext4-8k": "-t ext4 -b 8192 -O ^has_journal",
    "ext4-16k": "-t ext4 -b 16384 -I 4096 -O ^has_journal,^metadata_csum",
    "ext4-32k": "-t ext4 -b 32768 -I 2048 -O ^has_journal,ea_inode",
    "ext4-64k": "-t ext4 -b 65536 -O ^has_journal",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_as_the_tree_it_was_made_from(name: str, tmp_path: Path) -> None:
    """No right is needed for this one: mke2fs -d copies a tree, and our view of the image is the tree's."""
    size = {"ext4-64k": 40 * MIB}.get(name, 8 * MIB)
    image = mke2fs(
        small_image(tmp_path, name, "-b 1024"), LAYOUTS[name], size, "-N", "600", "-d", os.fspath(tmp_path / "tree")
    )
    theirs = survey(Mounted(str(tmp_path / "tree")))
    with served(image) as filesystem:
        ours = survey(Served(filesystem))
    assert errors(ours) == []
    ours.pop(b"/lost+found")
    assert ours.keys() == theirs.keys()
    for path, facts in theirs.items():
        for fact in ("mode", "uid", "gid", "rdev", "link", "data") + (
            ("size", "nlink") if "names" not in facts else ()
        ):
            if path or fact != "mode":
                assert ours[path].get(fact) == facts.get(fact), (path, fact)
        assert abs(time_of(ours, path) - time_of(theirs, path)) < 10**9, path
        user = {key: value for key, value in mapping(facts["xattrs"]).items() if key.startswith(b"user.")}
        assert user.items() <= mapping(ours[path]["xattrs"]).items()


def time_of(view: View, path: bytes) -> int:
    value = view[path]["mtime_ns"]
    assert isinstance(value, int)
    return value if path else 0


def mapping(value: object) -> dict[bytes, object]:
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("name", ["ext2", "ext4", "ext4-inline"])
def test_as_debugfs_shows_it(name: str, tmp_path: Path) -> None:
    image = small_image(tmp_path, name, LAYOUTS[name])
    with served(image) as filesystem:
        ours = survey(Served(filesystem))
    requests = "".join(f'stat "{path.decode()}"\nls -p "{path.decode()}"\n' for path in ours if path)
    told = subprocess.run(
        ["debugfs", "-f", "-", image], input=requests, capture_output=True, text=True, check=True
    ).stdout
    inodes = re.findall(
        r"^Inode: (\d+) .*?Mode: +(\d+).*?Size: (\d+).*?Links: (\d+) +Blockcount: (\d+)", told, re.DOTALL | re.MULTILINE
    )
    assert len(inodes) == len(ours) - 1
    for facts, (ino, mode, size, links, _sectors) in zip(list(ours.values())[1:], inodes, strict=True):
        permissions = facts["mode"]
        assert isinstance(permissions, int)
        assert (facts["ino"], stat.S_IMODE(permissions), facts["nlink"]) == (int(ino), int(mode, 8), int(links))
        assert facts["size"] == int(size)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_image(tmp_path_factory.mktemp("one"), "one", "-t ext4 -b 1024")


@pytest.fixture
def filesystem(image: Path) -> Iterator[Ext4Filesystem]:
    with served(image) as opened:
        yield opened


def refused(number: int, ask: object, *words: object) -> bool:
    assert callable(ask)
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        ask(*words)
    return caught.value.errno == number


def test_the_root_is_node_1_and_inode_2(filesystem: Ext4Filesystem) -> None:
    assert filesystem.getattr(ROOT_NODE).ino == 2
    listed = {entry.name: (entry.ino, entry.kind) for entry in filesystem.readdir(ROOT_NODE, 0, 0)}
    assert listed[b"."] == listed[b".."] == (2, stat.S_IFDIR)
    assert listed[b"fifo"][1] == stat.S_IFIFO
    entry = filesystem.lookup(ROOT_NODE, b"file")
    assert entry.node == entry.attr.ino == listed[b"file"][0]
    assert filesystem.lookup(ROOT_NODE, b"again") is entry
    assert filesystem.getattr(entry.node) is entry.attr
    assert (entry.entry_timeout_ns, entry.attr_timeout_ns, filesystem.attr_timeout()) == (FOREVER,) * 3


def test_refusals(filesystem: Ext4Filesystem) -> None:
    file, slow, fifo = (filesystem.lookup(ROOT_NODE, name).node for name in (b"file", b"slow", b"fifo"))
    buffer = memoryview(bytearray(10))
    assert refused(errno.ENOENT, filesystem.lookup, ROOT_NODE, b"nothing")
    assert refused(errno.ENOENT, filesystem.lookup, ROOT_NODE, b".")
    assert refused(errno.ENOENT, filesystem.lookup, ROOT_NODE, b"..")
    assert refused(errno.ENAMETOOLONG, filesystem.lookup, ROOT_NODE, b"n" * 256)
    assert refused(errno.ENOTDIR, filesystem.lookup, file, b"x")
    assert refused(errno.ENOTDIR, lambda: list(filesystem.readdir(file, 0, 0)))
    assert refused(errno.EINVAL, filesystem.readlink, file)
    assert refused(errno.EISDIR, filesystem.read, ROOT_NODE, 0, 0, buffer)
    assert refused(errno.EINVAL, filesystem.read, slow, 0, 0, buffer)
    assert refused(errno.EINVAL, filesystem.read, fifo, 0, 0, buffer)
    assert refused(errno.ENODATA, filesystem.getxattr, file, b"user.none")
    assert refused(errno.EOPNOTSUPP, filesystem.getxattr, file, b"system.data")
    assert refused(errno.EOPNOTSUPP, filesystem.getxattr, file, b"other")
    assert refused(errno.ENXIO, filesystem.lseek, file, 0, 9000, os.SEEK_DATA)
    assert refused(errno.ENXIO, filesystem.lseek, file, 0, -1, os.SEEK_HOLE)
    for node in (0, 2**32, 2**63, 5, 8):
        if node:
            assert refused(errno.EIO, filesystem.getattr, node)
    filesystem.forget(file)
    filesystem.destroy()


def test_every_slice_of_a_file(filesystem: Ext4Filesystem, image: Path) -> None:
    chance = random.Random(7)
    for name in (b"file", b"sparse", b"short"):
        node = filesystem.lookup(ROOT_NODE, name).node
        size = filesystem.getattr(node).size
        whole = bytes(filesystem.read(node, 0, 0, memoryview(bytearray(size + 100))))
        assert (
            hashlib.sha256(whole).digest()
            == hashlib.sha256((image.parent / "tree" / name.decode()).read_bytes()).digest()
        )
        for _ in range(500):
            at, length = chance.randrange(size + 50), chance.randrange(1, 40_000)
            buffer = memoryview(bytearray(b"\xee" * length))
            assert bytes(filesystem.read(node, 0, at, buffer)) == whole[at : at + length]


def test_a_listing_resumes_at_any_number(filesystem: Ext4Filesystem) -> None:
    inner = filesystem.lookup(filesystem.lookup(ROOT_NODE, b"directory-5").node, b"inner").node
    everything = list(filesystem.readdir(inner, 0, 0))
    assert len(everything) == 62
    for position in [*range(0, 8000, 7), 2**40, 2**63 - 1]:
        rest = [entry.name for entry in filesystem.readdir(inner, 0, position)]
        assert rest == [entry.name for entry in everything if entry.offset > position]


def test_opening(image: Path) -> None:
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        forgets = Ext4Filesystem(fd, timeout_ns=0, keep_cache=False)
        node = forgets.lookup(ROOT_NODE, b"file").node
        assert forgets.attr_timeout() == forgets.lookup(ROOT_NODE, b"file").entry_timeout_ns == 0
        assert (forgets.open(node, 0).flags, forgets.opendir(ROOT_NODE).flags) == (0, 0)
        assert refused(errno.EISDIR, forgets.open, ROOT_NODE, 0)
        assert refused(errno.ENOTDIR, forgets.opendir, node)
        for by_itself in (Ext4Filesystem(fd), Ext4Filesystem(fd, timeout_ns=0)):
            assert refused(errno.ENOSYS, by_itself.open, node, 0)
            assert refused(errno.ENOSYS, by_itself.opendir, ROOT_NODE)
    finally:
        os.close(fd)


def test_look_ups_are_remembered_up_to_a_bound(image: Path) -> None:
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        filesystem = Ext4Filesystem(fd, cache_bytes=2 * BYTES_PER_LOOKUP)
        for name in [b"file", b"again", b"fifo", b"file"] * 2:
            assert filesystem.lookup(ROOT_NODE, name).attr.ino == filesystem.lookup(ROOT_NODE, name).node
            assert len(filesystem._found) <= 2
        assert refused(errno.ENOENT, filesystem.lookup, ROOT_NODE, b"none")
    finally:
        os.close(fd)


def test_an_image_inside_something_larger(image: Path, tmp_path: Path) -> None:
    whole = tmp_path / "disk"
    content = image.read_bytes()
    whole.write_bytes(b"\xaa" * 12_345 + content + b"\xbb" * 999)
    with served(image) as alone, served(whole, offset=12_345, size=len(content)) as inside:
        assert survey(Served(inside)) == survey(Served(alone))


def test_directories_too_large_to_be_remembered(tmp_path: Path) -> None:
    """With a small cache a look-up searches, and finds the same."""
    tree = tmp_path / "tree"
    (tree / "large").mkdir(parents=True)
    names = [f"{number}{'-' * (number % 50)}" for number in range(3000)]
    for name in names:
        (tree / "large" / name).touch()
    made = mke2fs(tmp_path / "large.img", "-t ext4 -b 1024", 16 * MIB, "-N", "4000", "-d", os.fspath(tree))
    fd = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
    try:
        small, usual = Ext4Filesystem(fd, cache_bytes=1 << 16), Ext4Filesystem(fd)
        nodes = {each: each.lookup(ROOT_NODE, b"large").node for each in (small, usual)}
        for name in [*names[::100], names[-1]]:
            found = [each.lookup(node, name.encode()).attr for each, node in nodes.items()]
            assert found[0].ino == found[1].ino
        for absent in (b"3000", b"1-2", b"-", b"0-", b"x" * 255):
            assert all(refused(errno.ENOENT, each.lookup, node, absent) for each, node in nodes.items())
        assert {entry.name for entry in small.readdir(nodes[small], 0, 0)} == {n.encode() for n in [*names, ".", ".."]}
    finally:
        os.close(fd)


def test_what_is_imported() -> None:
    """A server starts in milliseconds: nothing expensive is imported."""
    code = (
        "import sys; before = set(sys.modules); import fuservice.drivers.ext4.volume; print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, 'src'); {code}"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[3],
    )  # fmt: skip
    assert not {"typing", "dataclasses", "re", "enum", "logging", "subprocess", "asyncio"} & set(done.stdout.split())
