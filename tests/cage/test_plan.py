"""The plan of the cage: data, printable, the same for the same profile, and in an order in which it can be carried out."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from fuservice.cage import operations as ops
from fuservice.cage.plan import HANDOVER_FD, WALLS, Profile, clone_flags, enter, plan
from fuservice.errors import UsageError
from fuservice.linux.namespaces import CLONE_NEWPID, CLONE_NEWUSER

ROOT = Profile(supervised=True)
PLAIN = Profile(uid=1000, gid=100, user_namespace=True)


def lines(profile: Profile, without: Collection[str] = ()) -> list[str]:
    """Return what the plan says of itself."""
    return [operation.describe() for operation in plan(profile, without)]


def places(profile: Profile) -> dict[str, int]:
    """Return where each kind of operation stands in the plan."""
    return {type(operation).__name__: place for place, operation in enumerate(plan(profile))}


def test_a_plan_is_data() -> None:
    """Two plans of the same profile are equal: nothing was asked of the system, and nothing was done to it."""
    assert list(plan(Profile())) == list(plan(Profile()))
    assert list(plan(Profile())) != list(plan(Profile(uid=1000)))
    assert len(set(plan(Profile()))) == len(plan(Profile()))


@pytest.mark.parametrize("profile", [ROOT, PLAIN], ids=["root", "plain"])
def test_it_can_be_printed_one_line_each(profile: Profile) -> None:
    assert all(line and line.isprintable() for line in lines(profile))
    assert {"limit NOFILE to 64", "limit CORE to 0", "no new privileges"} <= set(lines(profile))
    assert "namespaces of its own: mount, net, ipc, uts, cgroup" in lines(profile)


def test_the_profile_decides_who_and_how_much() -> None:
    assert {
        "become uid 7, gid 8, no other groups",
        "limit NOFILE to 9",
        "limit AS to 1048576",
        "limit CPU to 10",
    } <= set(lines(Profile(uid=7, gid=8, descriptors=9, memory=1 << 20, cpu_seconds=10)))
    assert "become uid 7, gid 7, no other groups" in lines(Profile(uid=7))
    assert "become a user that nobody else is: uid and gid 2100000000 + process number, no other groups" in lines(ROOT)
    assert "a user namespace, where only uid 1000 and gid 100 exist" in lines(PLAIN)
    assert not any(line.startswith("become") for line in lines(PLAIN))
    assert "a root that shows only /usr/share/zoneinfo: read-only, no devices, nothing executable, no /proc" in lines(
        Profile(binds=["/usr/share/zoneinfo"])
    )


def test_a_driver_s_system_calls_are_allowed_beside_the_servers() -> None:
    def allowed(profile: Profile) -> set[str]:
        return set(lines(profile)[-1].rpartition(": ")[2].split(", "))

    assert allowed(Profile(syscalls=["lseek"])) - allowed(Profile()) == {"lseek"}


@pytest.mark.parametrize(("supervised", "descriptors", "by"), [(True, HANDOVER_FD + 1, "its supervisor"), (False, 4, "the kernel")])  # fmt: skip
def test_a_supervisor_is_told_of_violations_and_outlived_by_nobody(
    *, supervised: bool, descriptors: int, by: str
) -> None:
    said = lines(Profile(supervised=supervised))
    assert ("be killed when the supervisor ends" in said) is supervised
    assert f"close every descriptor from {descriptors} on" in said
    assert by in said[-1]


@pytest.mark.parametrize(
    ("first", "then", "why"),
    [
        ("OomScore", "EmptyRoot", "the score is set in /proc"),
        ("BecomeOwnUser", "EmptyRoot", "our number is read in /proc"),
        ("Namespaces", "HostName", "or the machine would be renamed"),
        ("Namespaces", "EmptyRoot", "or the machine would lose its root"),
        ("EmptyRoot", "DropCapabilities", "pivot_root(2) needs CAP_SYS_ADMIN"),
        ("EmptyRoot", "Landlock", "Landlock forbids to mount"),
        ("DropBoundingSet", "DropCapabilities", "dropping from the bounding set needs CAP_SETPCAP"),
        ("BecomeOwnUser", "DropCapabilities", "another uid and gid need CAP_SETUID and CAP_SETGID"),
        (
            "BecomeOwnUser",
            "NotDumpable",
            "changing the ids makes a process dumpable again, or not, as the system likes",
        ),
        ("BecomeOwnUser", "DieWithParent", "changing the ids clears the signal"),
        ("NoNewPrivileges", "Landlock", "the kernel takes it from nobody else without capabilities"),
        ("DieWithParent", "Seccomp", "a parent that is gone is found out by the hand-over"),
        ("Landlock", "Seccomp", "the filter allows no call that builds a wall"),
    ],
)
def test_the_order_is_one_in_which_it_can_be_done(first: str, then: str, why: str) -> None:
    at = places(ROOT)
    assert at[first] < at[then], why
    assert places(PLAIN)["UserNamespace"] < places(PLAIN)["Namespaces"], "a plain user may do nothing of this before"


@pytest.mark.parametrize("profile", [ROOT, PLAIN], ids=["root", "plain"])
def test_every_wall_stands(profile: Profile) -> None:
    own = next(line for line in lines(profile) if line.startswith("namespaces"))
    built = {operation.wall for operation in plan(profile)} | {wall for wall in WALLS if wall in own}
    assert built - {""} == set(WALLS) - (set() if profile.supervised else {"parent"})


@pytest.mark.parametrize("wall", WALLS)
def test_a_wall_can_be_left_out_by_name_and_nothing_else_goes_with_it(wall: str) -> None:
    whole, less = lines(ROOT), lines(ROOT, [wall])
    gone = [line for line in whole if line not in less]
    if wall in {"mount", "privileges"}:  # others stand on it
        assert not gone
    else:
        assert gone and all(o.wall in {wall, ""} for o in plan(ROOT) if o.describe() in gone)


def test_what_nothing_stands_on_any_more_can_be_left_out_too() -> None:
    without = {"mount", "privileges", "root", "landlock", "seccomp", "net", "ipc", "uts", "cgroup"}
    assert not any("mount" in line or line.startswith(("namespaces", "no new")) for line in lines(ROOT, without))
    assert {o.wall for o in plan(ROOT, WALLS)} == {""}


def test_a_wall_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match=r"there is no wall `seccmp': there are session, limits, .*, seccomp$"):
        plan(ROOT, ["seccmp"])


def test_clone_is_told_what_it_must_make() -> None:
    assert clone_flags(plan(ROOT)) == CLONE_NEWPID
    assert clone_flags(plan(PLAIN)) == CLONE_NEWPID | CLONE_NEWUSER
    assert clone_flags(plan(PLAIN, ["pid", "user"])) == 0


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
