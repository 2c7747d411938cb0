"""Images of every layout: all that we show is what the kernel's own read-only mount shows, and nothing is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.ext4.images import RECIPES, full_image, served
from tests.drivers.ext4.view import Mounted, Served, differences, errors, survey
from tests.support.mounts import loop_mounted


@pytest.mark.needs("root", "loop", "ext4", "e2fsprogs")
@pytest.mark.parametrize("name", RECIPES)
def test_as_the_kernel_shows_it(name: str, tmp_path: Path) -> None:
    image = full_image(tmp_path, name)
    point = tmp_path / "kernel"
    point.mkdir()
    with loop_mounted(image, point):
        theirs = survey(Mounted(str(point)))
    with served(image) as filesystem:
        ours = survey(Served(filesystem))
        assert filesystem.volume.complaints == []
    print(f"{name}: {len(ours)} entries, {sum('data' in facts for facts in ours.values())} files")
    assert differences(ours, theirs) == []
    assert errors(ours) == []
    assert len(ours) > 2500
