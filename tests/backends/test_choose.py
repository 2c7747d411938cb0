"""Which back end is taken: the one that was asked for, the first that can be used, or a sentence with every reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fuservice.backends import choose
from fuservice.backends.backend import Backend
from fuservice.backends.root import Root
from fuservice.errors import PolicyError, UsageError
from tests.support.capabilities import PROGRAMS


def backend(called: str, reason: str | None) -> type[Backend]:
    """Return a back end *called* so that has *reason* not to be used."""

    class One(Backend):
        name = called

        def why_not(self) -> str | None:
            return reason

    return One


def test_the_first_that_can_be_used_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (backend("root", "no"), backend("fusermount3", None), backend("broker", None))
    monkeypatch.setattr(choose, "BY_ITSELF", kinds)
    assert choose.choose().name == "fusermount3"


def test_where_none_can_be_used_each_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "BY_ITSELF", (backend("root", "not root"), backend("broker", "nobody listens")))
    with pytest.raises(PolicyError, match="root: not root; broker: nobody listens"):
        choose.choose()


def test_the_one_that_was_asked_for_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "ALL", (backend("root", "not root"), backend("broker", None)))
    assert choose.choose("broker").name == "broker"
    with pytest.raises(PolicyError, match="--via=root: not root"):
        choose.choose("root")


def test_a_name_that_is_none() -> None:
    with pytest.raises(UsageError, match="--via=sudo: expected one of root, fusermount3, broker, namespace"):
        choose.choose("sudo")


@pytest.mark.needs("root")
def test_root_may_mount() -> None:
    assert Root().why_not() is None


ASK = "from fuservice.backends.root import Root; print(Root().why_not())"


@pytest.mark.needs("root", "userns", "nobody-python")
@pytest.mark.parametrize(
    ("before", "says"),
    [
        (["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], "has no CAP_SYS_ADMIN"),
        (["unshare", "-Ur"], "does not reach the mount namespace, which belongs to an outer user namespace"),
        (["unshare", "-Urm"], "None"),
    ],
)
def test_who_may_not_is_told_why(before: list[str], says: str) -> None:
    command: list[str | Path] = [*before, PROGRAMS / "python3", "-c", ASK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert says in done.stdout, done
