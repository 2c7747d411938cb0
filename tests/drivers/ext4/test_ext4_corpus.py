"""The 130 images of e2fsprogs' tests, damaged on purpose: each is served as far as it is sound, or refused with a sentence."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from fuservice.errors import ImageError
from tests.drivers.ext4.hostile import order, summary, walked
from tests.drivers.ext4.images import served
from tests.drivers.ext4.view import Mounted, Served, View, differences, errors, survey
from tests.support.mounts import loop_mounted

OURS = Path(__file__).parent / "corpus"

#: Served by us, refused by the kernel, which looks at more than it needs before it shows anything.
ONLY_WE_SERVE = {
    "f_badjourblks": "the journal's inode points outside; we do not look at the journal",
    "f_illbbitmap": "a block bitmap outside its group; nobody who reads needs it",
    "f_illibitmap": "an inode bitmap outside its group; nobody who reads needs it",
    "f_miss_journal": "the journal's inode is empty; we do not look at the journal",
    "f_misstable": "group 1 has no inode table: its inodes are EIO, the others are served",
    "f_overfsblks": "structures overlap; the kernel wants to keep writers off them",
    "f_sb_extra_isize": "s_want_extra_isize is too large; it matters to writers only",
}
#: Where both read something and it differs.
KNOWN_DIFFERENCES = {
    "f_h_badnode": "the kernel lists along the broken hash index and loses names; we list the blocks",
    "f_h_badroot": "the kernel lists along the broken hash index and loses names; we list the blocks",
    "f_h_reindex": "the kernel lists along the broken hash index and loses names; we list the blocks",
}


@pytest.fixture(scope="module")
def corpus(request: pytest.FixtureRequest) -> dict[str, Path]:
    """Give the images by name: those beside this file, or those of --corpus."""
    where = Path(request.config.getoption("--corpus") or OURS)
    images = {path.name.partition(".img")[0]: path for path in sorted(where.glob("*.img*"))}
    assert where != OURS or len(images) == 130
    return images


def test_within_bounds(corpus: dict[str, Path], request: pytest.FixtureRequest) -> None:
    outcomes = walked(order(name, path) for name, path in corpus.items())
    print(summary("e2fsprogs' corpus", outcomes))
    for one in outcomes:
        if one.outcome == "refused":
            print(f"  {one.name}: {one.words}")
            assert len(one.words) > 20
            assert "\n" not in one.words
    if not request.config.getoption("--corpus"):
        assert sum(one.outcome == "refused" for one in outcomes) == 7


@pytest.mark.needs("root", "loop", "ext4")
def test_beside_the_kernel(corpus: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whatever both can read is equal, and whatever the kernel mounts we serve. A line for each image is printed."""
    point = tmp_path / "kernel"
    point.mkdir()
    unexpected: list[str] = []
    compared, entries, wrong = 0, 0, 0
    for name, path in corpus.items():
        image = tmp_path / f"{name}.img"
        data = path.read_bytes()
        image.write_bytes(gzip.decompress(data) if path.suffix == ".gz" else data)
        ours, theirs = our_view(image), kernel_view(image, point)
        print(f"{name:34} {outcome(ours):36} the kernel: {outcome(theirs):36} {verdict(name, ours, theirs)}")
        if (ours is None) != (theirs is None):
            if name not in ONLY_WE_SERVE or ours is None:
                unexpected.append(f"{name}: {'the kernel' if ours is None else 'we'} alone can open it")
        elif ours is not None and theirs is not None:
            compared += 1
            entries += len(ours.keys() & theirs.keys())
            refused = wrong_checksums(theirs)
            wrong += len(refused)
            unexpected += [f"{name}: {place}: only the kernel minds" for place in refused - complaints(ours)]
            found = differences(ours, theirs, forgiving=True)
            if bool(found) != (name in KNOWN_DIFFERENCES):
                unexpected.append(f"{name}: {found[:3]}")
        image.unlink()
    print(
        f"compared with the kernel: {compared} images, {entries} entries, {len(KNOWN_DIFFERENCES)} with a known difference; "
        f"{wrong} objects have a wrong checksum, for both"
    )
    assert unexpected == []
    assert wrong > 30 or request.config.getoption("--corpus")


def outcome(view: View | None) -> str:
    """Return what became of an image, in a few words."""
    if view is None:
        return "refused"
    lost = len(errors(view))
    return f"{len(view)} entries" + (f", {lost} answers are errors" if lost else "")


def verdict(name: str, ours: View | None, theirs: View | None) -> str:
    """Return how the two are related."""
    if ours is None or theirs is None:
        return "both refuse" if ours is theirs else f"only we serve: {ONLY_WE_SERVE.get(name, '?')}"
    return KNOWN_DIFFERENCES.get(name, "equal, where both have an answer")


def wrong_checksums(theirs: View) -> set[str]:
    """Return the objects, and which part of them, that the kernel refuses for their checksum."""
    return {line.removesuffix(": EBADMSG") for line in errors(theirs) if line.endswith(": EBADMSG")}


def complaints(ours: View) -> set[str]:
    return {line.removesuffix(": EIO") for line in errors(ours) if line.endswith(": EIO")}


def our_view(image: Path) -> View | None:
    try:
        with served(image) as filesystem:
            return survey(Served(filesystem))
    except ImageError:
        return None


def kernel_view(image: Path, point: Path) -> View | None:
    try:
        with loop_mounted(image, point):
            return survey(Mounted(str(point)))
    except subprocess.CalledProcessError:
        return None
