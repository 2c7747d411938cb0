"""How many servers there may be at once: in all, and for each user who connects. Refusing costs no process."""

from __future__ import annotations

from fuservice.launch.rate import Bucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Final

MOST_SERVERS: Final = 1_000
PER_UID: Final = 32
_FOR_OURSELVES: Final = 8  # so many times as much for root and the listener's own user, who need no socket to use it up
_REMEMBERED: Final = 1_024  # users whose refusals are counted: one who owns many uids must not fill our memory
_BURST, _RATE = 5, 0.2  # lines about refusals of one user, and how many more a second


class Slots:
    """Which user has how many servers, or connections that wait for one."""

    def __init__(self, per_uid: int, most: int, ourselves: Collection[int], what: str = "servers") -> None:
        """*ourselves*: the uids for which the limit is wider; *what* is counted, as one says it."""
        self._per_uid, self._most, self._ourselves, self._what = per_uid, most, ourselves, what
        self._taken: dict[int, int] = {}
        self._all = 0

    def __len__(self) -> int:
        return self._all

    def take(self, uid: int) -> str | None:
        """Take a slot for *uid*; or return why there is none."""
        taken = self._taken.get(uid, 0)
        most = self._per_uid * (_FOR_OURSELVES if uid in self._ourselves else 1)
        if taken >= most:
            return f"refused uid {uid}, which has {taken} {self._what}: more are not allowed to one user"
        if self._all >= self._most:
            return f"refused uid {uid}: {self._all} {self._what} are alive, which is the most"
        self._taken[uid] = taken + 1
        self._all += 1
        return None

    def give_back(self, uid: int) -> None:
        """Free one slot of *uid*."""
        self._all -= 1
        self._taken[uid] -= 1
        if not self._taken[uid]:
            del self._taken[uid]


class Refusals:
    """Which refusals are told: each user's first ones, and then one in a while, with the number that was kept back."""

    def __init__(self) -> None:
        self._users: dict[int, tuple[Bucket, int]] = {}

    def tell(self, uid: int, sentence: str, now: float) -> str | None:
        """Return what to log of a refusal of *uid* at *now* (seconds), None for nothing."""
        bucket, kept_back = self._users.pop(uid) if uid in self._users else (Bucket(_BURST, _RATE), 0)
        told = bucket.take(now)
        self._users[uid] = bucket, 0 if told else kept_back + 1
        if len(self._users) > _REMEMBERED:
            del self._users[next(iter(self._users))]  # whoever was refused longest ago
        if not told:
            return None
        return f"{sentence} ({kept_back} more refusals were not told)" if kept_back else sentence
