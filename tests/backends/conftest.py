"""A fresh user, and an image with a bit of everything, beside what the kernel's own mount of it shows."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from demo.tree import make_image, plant
from tests.support.capabilities import PROGRAMS, REPOSITORY
from tests.support.mounts import loop_mounted
from tests.support.user import User, fresh_user

if TYPE_CHECKING:
    from tests.support.compare import Facts


class Image(NamedTuple):
    """An image that everybody can read, and what the kernel shows to a user who may read all of it."""

    path: Path
    facts: dict[bytes, Facts]


READ_ALL = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # and no more: no trusted attributes


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Give the image."""
    place = Path(tempfile.mkdtemp(prefix="fuservice-image-"))
    place.chmod(0o755)
    (place / "tree").mkdir()
    (place / "mnt").mkdir()
    (place / "home").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place / "tree"], check=True)
    plant(place / "tree")
    for path in (place / "tree/attributes", *(place / "tree/attributes").iterdir()):
        for name in os.listxattr(path):  # trusted.*: our server lists what only root may read
            os.removexattr(path, name)
    make_image(place / "tree", place / "image", "96M")
    subprocess.run(["umount", "-l", place / "tree"], check=True)
    (place / "image").chmod(0o644)
    with loop_mounted(place / "image", place / "mnt"):
        facts = User(place).facts(place / "mnt", extra=READ_ALL)
    yield Image(place / "image", facts)
    (place / "image").unlink()
    for directory in (place / "tree", place / "mnt", place / "home", place):
        directory.rmdir()


@pytest.fixture
def user() -> Iterator[User]:
    """Give a fresh user on a stock distribution."""
    with fresh_user() as made:
        yield made
        made.check_nothing_left()


class Driven(NamedTuple):
    """What tests.backends.drive tells."""

    via: str | None
    lost: list[str]
    said: list[str]
    error: str | None


def in_checkout(*words: str | Path) -> list[str | Path]:
    """Return the words that run Python with *words* where it finds the tests."""
    return ["env", "-C", REPOSITORY, PROGRAMS / "python", *words]


def drive(user: User, via: str, *words: str | Path) -> Driven:
    """Mount as *user* by the back end *via* ("": the first that can be used)."""
    ended = user.run(*in_checkout("-m", "tests.backends.drive", via), *words)
    assert ended.code == 0, ended
    told = json.loads(ended.stdout)
    return Driven(told.get("via"), told.get("lost", []), told["said"], told.get("error"))
