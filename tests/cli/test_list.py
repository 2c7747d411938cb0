"""``fuservice list``: what it makes of a server's words, which are not to be trusted."""

from __future__ import annotations

import pytest

from fuservice.cli.list import budgets
from fuservice.fuse.budget import DEFAULTS, Budgets


def test_budgets_are_what_the_server_tells() -> None:
    kept = Budgets({"depth": 7})
    kept.depth.need(5)
    found = budgets({f"status.{key}": value for key, value in kept.facts().items()})
    assert found is not None and list(found) == list(DEFAULTS)
    assert found["depth"] == {"limit": 7, "peak": 5, "overruns": 0}


@pytest.mark.parametrize("value", ["", "1/2", "1/2/3/4", "-1/2/3", "1/2/x", "1/2/\u0663", "1/2/" + "9" * 5000, "//"])
def test_what_are_no_budgets_is_passed_over(value: str) -> None:
    assert budgets({"status.budget_depth": value, "status.budget_time": "1/2/3"}) == {
        "time": {"limit": 2, "peak": 1, "overruns": 3}
    }


def test_a_server_that_told_nothing_has_none() -> None:
    assert budgets({}) is budgets({"start": "1/2/3", "budget_depth": "1/2/3"}) is None
