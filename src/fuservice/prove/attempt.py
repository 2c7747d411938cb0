"""What an attempt is: a name, what an attacker would gain, the walls that guard it, and code that tries it for real.

An attempt returns when it has SUCCEEDED in the harmful sense, and raises OSError when it was refused. What would do harm
to the machine if it succeeded is never tried: an attempt is the mildest form of its kind (a signal that does nothing, a
file that is removed again), since the proof of the proof makes it without any wall.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Final, NoReturn

    from fuservice.prove.ground import Ground

    Try = Callable[[Ground], None]

#: The guard that holds without any wall of ours: the kernel refuses it to everybody.
ALWAYS: Final = "always"


class BoundedError(Exception):
    """The attempt went as far as its budget, and no further: that is how a flood must end."""


class AbsentError(Exception):
    """What the attempt aims at is not on this machine, so it proves nothing."""


class Attempt:
    """One way out. *guards*: each is a wall, or walls joined by "+", that must make the attempt fail without all others."""

    __slots__ = ("floods_log", "gain", "guards", "name", "plain", "privileged", "subject", "tries")

    def __init__(
        self, subject: str, name: str, gain: str, guards: Iterable[str], tries: Try, *,
        plain: Iterable[str] = (), privileged: bool = False, floods_log: bool = False,
    ) -> None:  # fmt: skip
        """*plain*: guards where a plain user starts the cage, beside those of *guards* that do not rest on another uid.

        *privileged*: only who has rights on the machine can succeed, so a plain user may fail without any wall.

        *floods_log*: what came of it is seen outside, by whoever reads the log.
        """
        self.subject, self.name, self.gain, self.tries = subject, name, gain, tries
        self.guards, self.plain, self.privileged = tuple(guards), tuple(plain), privileged
        self.floods_log = floods_log

    def guarded_by(self, *, root: bool) -> Sequence[str]:
        """Return what guards it where *root* starts the cage, or a plain user: who has no rights to lose but in a namespace."""
        if root:
            return self.guards
        lost = {"user"} if self.privileged else {"user", "capabilities"}
        return (*(guard for guard in self.guards if not lost & set(guard.split("+"))), *self.plain)

    def __repr__(self) -> str:
        return f"<Attempt {self.name}>"


class Subject:
    """The attempts of one subject, in the order in which they are written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attempts: list[Attempt] = []

    def attempt(
        self,
        name: str,
        gain: str,
        guards: Iterable[str],
        *,
        plain: Iterable[str] = (),
        privileged: bool = False,
        floods_log: bool = False,
    ) -> Callable[[Try], Try]:
        """Return a decorator that makes an attempt of a function, which stays a function."""

        def register(tries: Try) -> Try:
            made = Attempt(
                self.name, name, gain, guards, tries, plain=plain, privileged=privileged, floods_log=floods_log
            )
            self.attempts.append(made)
            return tries

        return register


def refuse(number: int, why: str) -> NoReturn:
    """Raise what the kernel would: for what a call "succeeded" in without any gain for who made it."""
    error = OSError(number, os.strerror(number))
    error.add_note(why)
    raise error


def first_that_succeeds(calls: Iterable[Callable[[], object]]) -> None:
    """Return once one of *calls* succeeds; raise the last one's OSError where all of them are refused."""
    refusal = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for call in calls:
        try:
            call()
        except OSError as error:
            refusal = error
        else:
            return
    raise refusal
