"""Every image of the corpus, mounted through helper and listener, is entry by entry what the kernel says it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import corpus
from tests.support.compare import compare
from tests.support.mounts import loop_mounted

if TYPE_CHECKING:
    from tests.e2e.conftest import Listener

pytestmark = pytest.mark.needs("root", "fuse", "loop", "ext4", "e2fsprogs", "installed")

EVERYTHING = ("atime_ns", "ctime_ns", "blocks", "data", "ino")


@pytest.fixture
def image(tmp_path: Path, make_mount_point: Callable[[str], Path], request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give the image of the corpus that the test is parametrized with; it is too large to be kept."""
    path = tmp_path / f"{request.param}.img"
    corpus.make(request.param, path, make_mount_point("fill"))
    yield path
    path.unlink()


#: Every image by way of our listener; one by way of a unit, which is the same server.
WAYS = [
    *(("listen", image) for image in corpus.IMAGES),
    pytest.param("units", next(iter(corpus.IMAGES)), marks=pytest.mark.needs("systemd", "nobody-python")),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("activated_by", "image"), WAYS, indirect=True)
def test_equal_to_the_kernel(
    image: Path, mount_ext4: Callable[..., Path], make_mount_point: Callable[[str], Path], listener: Listener
) -> None:
    ours = mount_ext4(image, "ro,suid,dev")  # the whole truth, set-id bits and device nodes too
    with loop_mounted(image, make_mount_point("kernel")) as kernels:
        result = compare(ours, kernels, also=EVERYTHING)
    assert not result.differences, "\n".join(result.differences[:30])
    assert result.entries > corpus.ODD_FILES + corpus.DEEP
    print(f"{image.name}: {result.entries} entries, {result.bytes >> 20} MiB, {result.kinds}")
    said = listener.said().splitlines()
    assert all(line.startswith("listening on ") for line in said), said
