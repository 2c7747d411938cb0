"""fs-verity: files are served and verified, their hash trees are not data, and their digests are those of fsverity(1).

The kernel here may lack fs-verity, so the images are made by hand: hash tree and descriptor are written behind the data through the
kernel's mount, then debugfs sets size and flag. Digests are known ones, from the fsverity program.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.drivers.ext4 import ioctls
from fuservice.drivers.ext4.fiemap import fiemap
from fuservice.fuse.filesystem import ROOT_NODE
from tests.drivers.ext4.images import MIB, mke2fs, served
from tests.drivers.ext4.test_ext4_damage import debugfs, number
from tests.drivers.ext4.view import Served, survey
from tests.fuse.kernelmount import served as mounted_by_fuse
from tests.support.mounts import loop_mounted

if TYPE_CHECKING:
    from fuservice.drivers.ext4.filesystem import Ext4Filesystem

pytestmark = pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")

READ_VERITY_METADATA = 0xC0286687
SALT = bytes(range(1, 20))


def contents(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def tree(data: bytes, name: str, block: int, salt: bytes) -> tuple[bytes, bytes]:
    """Return root hash and hash tree of *data*, by the words of the kernel's fsverity.rst."""

    def hashes(of: bytes) -> bytes:
        padded = salt.ljust(-(-len(salt) // hashlib.new(name).block_size) * hashlib.new(name).block_size, b"\0")
        pieces = [of[at : at + block].ljust(block, b"\0") for at in range(0, len(of), block)]
        return b"".join(hashlib.new(name, padded + piece).digest() for piece in pieces)

    levels, level = b"", hashes(data)
    if not data:
        return b"", b""
    while len(level) > hashlib.new(name).digest_size:
        level = level.ljust(-(-len(level) // block) * block, b"\0")
        levels, level = level + levels, hashes(level)
    return level, levels


def behind(data: bytes, name: str, block: int, salt: bytes, disk_block: int, signature: bytes = b"") -> bytes:
    """Return the whole file: data, hash tree, descriptor."""
    root, levels = tree(data, name, block, salt)
    descriptor = struct.pack(
        "<BBBBIQ64s32s144x", 1, 1 if name == "sha256" else 2, block.bit_length() - 1, len(salt), len(signature), len(data), root, salt
    ) + signature  # fmt: skip
    whole = data.ljust(-(-len(data) // 65536) * 65536, b"\0") + levels
    whole = whole.ljust(-(-len(whole) // disk_block) * disk_block, b"\0") + descriptor
    whole = whole.ljust(-(-(len(whole) + 4) // disk_block) * disk_block - 4, b"\0")
    return whole + struct.pack("<I", len(descriptor))


#: name → size, hash, block of the tree, salt, digest by `fsverity digest`.
FILES = {
    "empty": (0, "sha256", 4096, b"", "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
    "one": (100, "sha256", 4096, b"", "97c927f6bb3c357b62d108f8e150cf5b8525d7f249e3a55ba3bb1f53211f6794"),
    "block": (4096, "sha256", 4096, b"", "16ad3fec8e3a330a6ab76a2a77e8887aeca515b046846b723551dae7c76c5141"),
    "two": (4097, "sha256", 4096, SALT, "9f8e5e67f85408392aea88dee40f1f9bb4a30bbee364abf74c6ca3d9bc9a75aa"),
    "large": (700_000, "sha256", 4096, b"", "6069bbe2dfc101e5a7850eb0a53e7d47b8b40c41bc2790cfc8c65f49bc944a6c"),
    "three-levels": (300_000, "sha256", 1024, SALT, "fc5f3d86c7cd9009fe43a341049b4537c79bfb96fde13ef25eeadf043996dc16"),
    "sha512": (
        300_001,
        "sha512",
        4096,
        SALT,
        "5154ba4816300bd58b6d70d05b122043df86652ae259406de8e7d2c0800f7a9683b529b3c1d8a2034c16798b64058f11dd1b2e7f651d5ba2ae7e87c046af8659",
    ),
    "signed": (5000, "sha256", 4096, b"", "1c722f445976df4b9dd4d5bca048170452652c63990f0b2fb7d63781f4c8afdb"),
}


def made(directory: Path, options: str) -> Path:
    block = int(options.split("-b ")[1].split()[0])
    image = mke2fs(directory / "image", options, 24 * MIB)
    (directory / "rw").mkdir()
    with loop_mounted(image, directory / "rw", options="rw,loop") as point:
        for name, (size, kind, tree_block, salt, _digest) in FILES.items():
            whole = behind(contents(size), kind, tree_block, salt, block, b"S" * 700 if name == "signed" else b"")
            (point / name).write_bytes(whole)
        (point / "plain").write_bytes(b"plain")
    for name, (size, *_others) in FILES.items():
        ino = number(image, f"/{name}")
        debugfs(image, f"sif <{ino}> size {size}", f"sif <{ino}> flags 0x180000")
    subprocess.run(["tune2fs", "-O", "verity", image], check=True, capture_output=True)
    return image


@pytest.fixture(scope="module", params=["-t ext4 -b 4096", "-t ext4 -b 1024"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("verity"), request.param)


def measured(filesystem: Ext4Filesystem, name: str, room: int = 64) -> str:
    node = filesystem.lookup(ROOT_NODE, name.encode()).node
    answer = filesystem.control(node, 0, ioctls.MEASURE_VERITY, struct.pack("<HH", 0, room), 4 + room)
    algorithm, size = struct.unpack_from("<HH", answer)
    assert (algorithm, size) in ((1, 32), (2, 64))
    assert len(answer) == 4 + size
    return answer[4:].hex()


def test_data_and_digests(image: Path) -> None:
    with served(image) as filesystem:
        view = survey(Served(filesystem))
        for name, (size, _kind, _block, _salt, digest) in FILES.items():
            facts = view[b"/" + name.encode()]
            assert facts["size"] == size
            assert facts["data"] == hashlib.sha256(contents(size) + b"%d" % size).hexdigest(), name
            assert facts["map"] == ([(0, size)] if size else [])
            assert measured(filesystem, name) == digest, name
        assert filesystem.volume.complaints == []


def test_every_slice(image: Path) -> None:
    """Reads that begin and end anywhere."""
    chance = random.Random(1)
    with served(image) as filesystem:
        for name, (size, *_others) in FILES.items():
            node, data = filesystem.lookup(ROOT_NODE, name.encode()).node, contents(size)
            for _ in range(60):
                start = chance.randrange(size + 5)
                length = chance.choice((1, 100, 4096, 8192, 100_000, chance.randrange(size + 10)))
                into = memoryview(bytearray(b"\xa5" * length))
                assert bytes(filesystem.read(node, 0, start, into)) == data[start : start + length]


def test_the_descriptor(image: Path) -> None:
    with served(image) as filesystem:
        for name, (size, kind, tree_block, salt, _digest) in FILES.items():
            verity = filesystem.volume.verity(filesystem.volume.inode(number(image, f"/{name}")))
            root, _levels = tree(contents(size), kind, tree_block, salt)
            assert verity.descriptor[:4] == bytes(
                (1, 1 if kind == "sha256" else 2, tree_block.bit_length() - 1, len(salt))
            )
            assert verity.descriptor[16:80] == root.ljust(64, b"\0")
            assert len(verity.descriptor) == (956 if name == "signed" else 256)


def test_refusals(image: Path) -> None:
    with served(image) as filesystem:
        plain, large = (filesystem.lookup(ROOT_NODE, name).node for name in (b"plain", b"large"))
        for node, command, data, refusal in (
            (plain, ioctls.MEASURE_VERITY, struct.pack("<HH", 0, 64), errno.ENODATA),
            (large, ioctls.MEASURE_VERITY, struct.pack("<HH", 0, 31), errno.EOVERFLOW),
            (large, READ_VERITY_METADATA, bytes(40), errno.ENOTTY),
        ):
            with pytest.raises(OSError, match=r"\w") as refused:
                filesystem.control(node, 0, command, data, len(data))
            assert refused.value.errno == refusal


#: Which byte of "large", counted from its extents' start, is changed; what is said then.
DAMAGE = {
    "data": (300_000, "verity block 73: its hash is wrong"),
    "hashes of data": (720_896 + 4096 + 73 * 32, "block 0 of level 0 of its hash tree: its hash is wrong"),
    "upper hashes": (720_896, "block 0 of level 1 of its hash tree: its hash is wrong"),
    "version": (720_896 + 3 * 4096, "a verity descriptor of version"),
    "size": (720_896 + 3 * 4096 + 8, "a verity descriptor for"),
    "root": (720_896 + 3 * 4096 + 16, "block 0 of level 1 of its hash tree: its hash is wrong"),
    "length": (-3, "a verity descriptor of"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_eio(damage: str, image: Path, tmp_path: Path) -> None:
    """Of the block that is read, as with the kernel, and of no other file; -o nocheck looks at no hash."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    at, words = DAMAGE[damage]
    with served(image) as filesystem:
        extents = [*fiemap(filesystem.volume.metadata, filesystem.volume.inode(number(image, "/large")))]
    at = at if at >= 0 else extents[-1][0] + extents[-1][2] + at
    ((logical, physical),) = ((a, b) for a, b, length, _flags in extents if a <= at < a + length)
    with copy.open("r+b") as file:
        file.seek(physical + at - logical)
        (old,) = file.read(1)
        file.seek(physical + at - logical)
        file.write(bytes([old ^ 0xFF]))
    into = memoryview(bytearray(700_000))
    with served(copy) as filesystem:
        node = filesystem.lookup(ROOT_NODE, b"large").node
        with pytest.raises(OSError, match=words) as refused:
            filesystem.read(node, 0, 0, into)
        assert refused.value.errno == errno.EIO
        if damage == "data":
            assert bytes(filesystem.read(node, 0, 0, into[:200_000])) == contents(700_000)[:200_000]
        assert measured(filesystem, "two") == FILES["two"][4]
    with served(copy, check=False) as filesystem:
        found = bytes(filesystem.read(filesystem.lookup(ROOT_NODE, b"large").node, 0, 0, into))
        assert (found == contents(700_000)) == (damage != "data")


@pytest.mark.needs("fuse")
def test_through_a_mount(image: Path, mount_point: Path) -> None:
    """FS_IOC_MEASURE_VERITY passes (since Linux 6.10); FS_IOC_READ_VERITY_METADATA cannot: it has a pointer in it."""
    with served(image) as filesystem, mounted_by_fuse(mount_point, filesystem):
        assert (mount_point / "large").read_bytes() == contents(700_000)
        fd = os.open(mount_point / "large", os.O_RDONLY | os.O_CLOEXEC)
        try:
            buffer = bytearray(struct.pack("<HH", 0, 64) + bytes(64))
            fcntl.ioctl(fd, ioctls.MEASURE_VERITY, buffer)
            assert buffer[4:36].hex() == FILES["large"][4]
            with pytest.raises(OSError, match="Inappropriate ioctl"):
                fcntl.ioctl(fd, READ_VERITY_METADATA, bytearray(40))
        finally:
            os.close(fd)
        flags = subprocess.run(
            ["lsattr", mount_point / "large", mount_point / "plain"], capture_output=True, text=True, check=True
        )
        assert [line.split()[0].replace("-", "") for line in flags.stdout.splitlines()] == ["eV", "e"]
