"""The server in a unit, before it serves: who has connected."""

from __future__ import annotations

import pytest

from fuservice.cli.unit import caller


@pytest.mark.parametrize(("instance", "uid"), [("3-4711-1000", "1000"), ("0-1-0", "0"), ("12-unknown", "0")])
def test_the_caller_is_in_the_name_of_the_instance(instance: str, uid: str) -> None:
    assert caller(instance) == uid
