"""Slots and the telling of refusals, without a socket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fuservice.launch.rate import Bucket
from fuservice.launch.slots import Refusals, Slots


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(3, 2)
    assert [bucket.take(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(10.5) for _ in range(2)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(5)] == [True, True, True, False, False]
    assert bucket.take(1001.0, 2) and not bucket.take(1001.0, 2)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=80))
def test_no_user_and_nobody_has_more_than_is_allowed_and_nothing_is_lost(steps: list[tuple[bool, int]]) -> None:
    slots, held = Slots(3, 8, {0}), dict.fromkeys(range(5), 0)
    for take, uid in steps:
        if take:
            most = 24 if uid == 0 else 3
            allowed = held[uid] < most and sum(held.values()) < 8
            assert (slots.take(uid) is None) == allowed
            held[uid] += allowed
        elif held[uid]:
            slots.give_back(uid)
            held[uid] -= 1
        assert len(slots) == sum(held.values())


def test_a_refusal_says_whose_limit_it_was() -> None:
    slots = Slots(1, 2, set())
    assert slots.take(7) is None
    assert slots.take(7) == "refused uid 7, which has 1 servers: more are not allowed to one user"
    assert slots.take(8) is None
    assert slots.take(9) == "refused uid 9: 2 servers are alive, which is the most"


def test_refusals_are_told_a_few_times_and_then_now_and_then_with_a_count() -> None:
    refusals = Refusals()
    told = [refusals.tell(1, "no", 100.0) for _ in range(50)]
    assert told == ["no"] * 5 + [None] * 45
    assert refusals.tell(2, "no", 100.0) == "no"
    assert refusals.tell(1, "no", 106.0) == "no (45 more refusals were not told)"
    assert refusals.tell(1, "no", 106.0) is None


def test_somebody_with_many_uids_fills_no_memory() -> None:
    refusals = Refusals()
    for uid in range(5_000):
        assert refusals.tell(uid, "no", 1.0) == "no"
    assert len(refusals._users) == 1_024
