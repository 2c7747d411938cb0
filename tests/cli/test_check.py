"""``fuservice check``: what it prints and how it exits, with the reader in its real cage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fuservice.cli.main import main
from fuservice.errors import EXIT_FAILURE, EXIT_NO_SERVICE, EXIT_OK, EXIT_USAGE
from tests.drivers.ext4.images import small_image
from tests.drivers.ext4.test_ext4_checksums import flip, inode_at

caged = pytest.mark.needs("root", "e2fsprogs")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return small_image(tmp_path, "image", "-t ext4 -b 1024 -I 256")


@caged
def test_a_sound_image(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = image.read_bytes()
    assert main(["check", os.fspath(image)]) == EXIT_OK
    assert capfd.readouterr() == (f"{image}: ext4, served by our driver ext4: 200 objects, sound\n", "")
    assert image.read_bytes() == before


@caged
def test_a_damaged_image(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flip(image, inode_at(image, "/fifo") + 0x84)
    assert main(["check", os.fspath(image)]) == EXIT_FAILURE
    out, err = capfd.readouterr()
    assert out.startswith("/fifo: inode ") and out.endswith(": its checksum is wrong\n")
    assert err == f"fuservice: check: {image}: 200 objects, 1 findings\n"
    assert main(["check", "--json", os.fspath(image)]) == EXIT_FAILURE
    told = json.loads(capfd.readouterr().out)
    (finding,) = told.pop("findings")
    assert told == {
        "image": os.fspath(image),
        "type": "ext4",
        "driver": "ext4",
        "objects": 200,
        "whole": True,
        "notes": [],
    }
    assert (finding["path"], finding["what"]) == ("/fifo", out.strip().removeprefix("/fifo: "))


@caged
@pytest.mark.parametrize(("source", "words", "code"), [
    ("/missing/image", "No such file or directory", 1), (".", ".: is a directory, expected a regular file or a block device", 1),
    ("/dev/null", "is a character device", 1), (__file__, "is nothing that we know", 1),
])  # fmt: skip
def test_what_is_no_image(source: str, words: str, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", source]) == code
    assert words in capfd.readouterr().err


@caged
def test_what_has_no_reader_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(b"XFSB" + bytes(5000))
    assert main(["check", os.fspath(tmp_path / "x")]) == EXIT_NO_SERVICE
    assert capfd.readouterr().err.startswith(
        f"fuservice: {tmp_path}/x: is a filesystem of type xfs: there is no driver for it"
    )
    assert main(["check", "-t", "nosuch", os.fspath(tmp_path / "x")]) == EXIT_NO_SERVICE
    assert "no reader for type nosuch: there are ext2, ext3, ext4" in capfd.readouterr().err


@caged
def test_a_type_that_was_typed_is_not_looked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(bytes(5000))
    assert main(["check", "-t", "ext4", os.fspath(tmp_path / "x")]) == EXIT_FAILURE
    assert "no ext2, ext3 or ext4 filesystem" in capfd.readouterr().err


def test_a_time_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in ("0", "-1", str(1 << 40)):
        assert main(["check", f"--seconds={seconds}", "image"]) == EXIT_USAGE
        assert "expected a number of seconds" in capsys.readouterr().err
