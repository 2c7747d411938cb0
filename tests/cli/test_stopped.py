"""Whose mount it was that a unit has served."""

from __future__ import annotations

import pytest

from fuservice.cli.stopped import is_of


@pytest.mark.parametrize(
    ("facts", "instance", "mine"),
    [
        ({"type": "ext4", "helper": "4711", "socket": "/run/filesystems/ext4"}, "3-4711-0", True),
        ({"type": "ext4", "helper": "4711"}, "3-471-0", False),
        ({"type": "ext3", "helper": "4711"}, "3-4711-0", False),
        ({"type": "ext4", "helper": "4711", "socket": "transient"}, "0123456789abcdef-0", True),
        ({"type": "ext4", "helper": "4711", "socket": "/run/filesystems/ext4"}, "0123456789abcdef-0", False),
        ({}, "3-4711-0", False),
        ({}, "strange", False),
    ],
)
def test_the_helper_is_in_the_name_of_an_instance(facts: dict[str, str], instance: str, *, mine: bool) -> None:
    assert is_of(facts, "ext4", instance) is mine
