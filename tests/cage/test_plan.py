"""The plan of the cage: data, printable, the same for the same profile, and in an order in which it can be carried out."""

from __future__ import annotations

import pytest

from fuservice.cage import operations as ops
from fuservice.cage.plan import NOBODY, Profile, enter, plan


def places(profile: Profile) -> dict[str, int]:
    """Return where each kind of operation stands in the plan."""
    return {type(operation).__name__: place for place, operation in enumerate(plan(profile))}


def test_a_plan_is_data() -> None:
    """Two plans of the same profile are equal: nothing was asked of the system, and nothing was done to it."""
    assert list(plan(Profile())) == list(plan(Profile()))
    assert list(plan(Profile())) != list(plan(Profile(uid=1000)))
    assert len(set(plan(Profile()))) == len(plan(Profile()))


def test_it_can_be_printed_one_line_each() -> None:
    lines = [operation.describe() for operation in plan(Profile())]
    assert all(line and line.isprintable() for line in lines)
    assert f"become uid {NOBODY}, gid {NOBODY}, no other groups" in lines
    assert "limit NOFILE to 64" in lines and "limit CORE to 0" in lines


def test_the_profile_decides_who_and_how_much() -> None:
    lines = [o.describe() for o in plan(Profile(uid=7, gid=8, descriptors=9, memory=1 << 20))]
    assert {"become uid 7, gid 8, no other groups", "limit NOFILE to 9", "limit AS to 1048576"} <= set(lines)


@pytest.mark.parametrize(
    ("first", "then", "why"),
    [
        ("DropBoundingSet", "BecomeUser", "dropping from the bounding set needs CAP_SETPCAP, which goes with the ids"),
        ("BecomeUser", "DropCapabilities", "another uid and gid need CAP_SETUID and CAP_SETGID"),
        ("BecomeUser", "NotDumpable", "changing the ids makes a process dumpable again, or not, as the system likes"),
        ("NewSession", "BecomeUser", "the terminal goes before anything else"),
    ],
)
def test_the_order_is_one_in_which_it_can_be_done(first: str, then: str, why: str) -> None:
    at = places(Profile())
    assert at[first] < at[then], why


def test_nothing_is_missing() -> None:
    assert set(places(Profile())) == {
        "NewSession", "Limit", "DropBoundingSet", "BecomeUser", "DropCapabilities", "NoNewPrivileges", "NotDumpable",
    }  # fmt: skip


class Note(ops.Operation):
    """Writes down that it ran, or fails."""

    ran: list[str]

    def __init__(self, name: str, ran: list[str], error: Exception | None = None) -> None:
        self.name, self.ran, self.error = name, ran, error

    def describe(self) -> str:
        return self.name

    def execute(self) -> None:
        self.ran.append(self.name)
        if self.error is not None:
            raise self.error


def test_operations_run_in_order() -> None:
    ran: list[str] = []
    enter([Note("one", ran), Note("two", ran)])
    assert ran == ["one", "two"]


def test_the_first_that_fails_is_named_and_is_the_last() -> None:
    ran: list[str] = []
    with pytest.raises(PermissionError) as error:
        enter([Note("one", ran), Note("two", ran, PermissionError(1, "no")), Note("three", ran)])
    assert ran == ["one", "two"]
    assert error.value.__notes__ == ["while entering the cage: two"]


def test_an_operation_that_says_nothing_is_none() -> None:
    for call in (ops.Operation().describe, ops.Operation().execute):
        with pytest.raises(NotImplementedError):
            call()
