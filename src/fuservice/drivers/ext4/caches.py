"""A bounded cache whose hit costs one dictionary look-up.

Two generations: what is used is in the young one; when that is full it becomes the old one, and the old one goes. So an
entry that is used at least once per generation stays, as with least-recently-used, without moving anything on a hit.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Generic, TypeVar

    Key = TypeVar("Key")
    Value = TypeVar("Value")
else:  # typing costs 11 ms to import

    class Generic:
        def __class_getitem__(cls, _parameters: object) -> type:
            return cls

    Key = Value = None


class Generations(Generic[Key, Value]):
    """Keeps values of a total weight between *limit* and twice *limit*; a value heavier than *limit* is not kept."""

    __slots__ = ("_limit", "_old", "_weigh", "_weight", "_young")

    def __init__(self, limit: int, weigh: Callable[[Value], int]) -> None:
        self._limit, self._weigh, self._weight = limit, weigh, 0
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """Return what was put under *key*, or None if it has gone."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep *value*, at the price of older ones."""
        weight = self._weigh(value)
        if weight > self._limit:
            return
        if self._weight + weight > self._limit:
            self._old, self._young, self._weight = self._young, {}, 0
        self._young[key] = value
        self._weight += weight

    def weight(self) -> int:
        """Return the weight of all that is kept, counting twice what both generations have."""
        return sum(map(self._weigh, self._young.values())) + sum(map(self._weigh, self._old.values()))
