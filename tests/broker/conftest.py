"""A broker for each module, and for each test one that nobody uses, before and after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker.yard import Yard, yard


@pytest.fixture(scope="module")
def _yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    # A gate (needs) is shut before fixtures are made, so this runs only where it can.
    with yard(tmp_path_factory.mktemp("broker") / "log") as made:
        yield made


@pytest.fixture(name="broker")
def _clean_broker(_yard: Yard) -> Iterator[Yard]:
    """Give the broker, with nothing mounted below its place; at the end it has nothing open but what it had."""
    assert not _yard.here()
    yield _yard
    _yard.settle()
