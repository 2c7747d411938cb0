"""The stand for each test with a misbehaving peer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.stand import Stand, own_run


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Give a stand. When it is over, nothing may have changed on it but what the test detaches itself."""
    with own_run():
        made = Stand(tmp_path)
        yield made
        left = made.mounted()
        made.detach()
        assert not left, f"still mounted: {left}"
        assert made.files() == made.expected
