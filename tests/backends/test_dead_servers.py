"""A server that dies under `fuservice mount`, in each world of an ordinary user: what was made for the mount goes, and it is written why."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.backends.test_broker import user as user_with_broker  # noqa: F401  # a fixture
from tests.backends.test_broker import without as without
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.backends.conftest import Image
    from tests.support.user import User

pytestmark = pytest.mark.needs("root", "fuse", "fusermount3", "userns", "e2fsprogs", "loop", "ext4", "nobody-python")

WORLDS = {"fusermount3": ["--via=fusermount3"], "namespace": ["--private"], "broker": ["--via=broker"]}
SERVER, SUPERVISOR, GUARD = "ext4", "fuservice-direc", "fuservice-guard"
DIED = {
    (SERVER,): "its server died: signal 9", (SUPERVISOR,): "its server died: its supervisor ended with signal 9",
    (SERVER, SUPERVISOR): "its server died: its supervisor ended with signal 9",
}  # fmt: skip


class World(NamedTuple):
    """An ordinary user, and the words that say how they mount."""

    user: User
    words: list[str]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Give a user, and how they mount."""
    who = "user_with_broker" if request.param == "broker" else "user"
    return World(request.getfixturevalue(who), WORLDS[request.param])


def mount(user: User, image: Image, words: Sequence[str]) -> Path:
    """Mount *image* where there is no directory yet; return where."""
    ended = user.run("fuservice", "mount", "--direct", *words, image.path)
    assert ended.code == 0, ended
    return Path(ended.stdout.rstrip("\n"))


def kill(user: User, names: Sequence[str], number: int = signal.SIGKILL) -> None:
    """Send the processes that are called *names* a signal at once."""
    pids = {name: str(pid) for pid, name in user.processes().items()}
    user.run("kill", f"-{number}", *(pids[name] for name in names))


def reasons(user: User) -> list[str | None]:
    """Return why each mount of the user's has ended, the oldest first; None for one that has not."""
    place = user.home / ".local/state/fuservice/mounts"
    files = sorted(place.glob("[0-9]*.json"), key=lambda path: int(path.stem))
    told = [json.loads(path.read_text()) for path in files]
    assert all((facts["ended"] is None) == (facts["reason"] is None) for facts in told)
    return [facts["reason"] for facts in told]


def all_is_gone(user: User, point: Path) -> None:
    """See that nothing is left of a mount on *point*."""
    wait_until(lambda: user.left() == [] and not user.processes(), "the end of all that was there for the mount")
    assert not point.exists()


@pytest.mark.parametrize("victims", DIED, ids="+".join)
def test_what_was_made_goes_and_it_is_written_why(world: World, image: Image, victims: tuple[str, ...]) -> None:
    user = world.user
    for _ in range(3):
        point = mount(user, image, world.words)
        assert reasons(user)[-1] is None
        kill(user, victims)
        all_is_gone(user, point)
    told = set(reasons(user))
    # Of two that are killed at once, the supervisor may have reported the other's end, and be gone.
    assert told <= {DIED[victims], "its server died: signal 9"}, told


def test_whoever_unmounts_it_is_told_apart(world: World, image: Image) -> None:
    user = world.user
    point = mount(user, image, world.words)
    assert user.run("fuservice", "umount", point).code == 0
    all_is_gone(user, point)
    assert reasons(user) == ["unmounted by `fuservice umount'"]


def test_a_plain_unmount_removes_what_was_made_too(user: User, image: Image) -> None:
    point = mount(user, image, WORLDS["fusermount3"])
    assert user.run("fusermount3", "-u", point).code == 0
    all_is_gone(user, point)
    assert reasons(user) == ["unmounted"]


def test_a_holder_that_is_killed_takes_all_along(user: User, image: Image) -> None:
    point = mount(user, image, WORLDS["namespace"])
    kill(user, ["fuservice-hold"])
    all_is_gone(user, point)
    assert reasons(user) == ["unmounted"]


def test_a_directory_that_was_there_before_stays(user: User, image: Image) -> None:
    point = user.make("mnt")
    ended = user.run("fuservice", "mount", "--direct", "--via=fusermount3", image.path, point)
    assert ended.code == 0, ended
    kill(user, [SERVER])
    wait_until(lambda: not user.processes(), "the end of all processes")
    assert user.left() == [] and list(point.iterdir()) == []


def test_the_users_own_listener_does_the_same(user: User, image: Image) -> None:
    listener = user.start("fuservice", "listen", "ext4")
    try:
        assert listener.stdout and "listening on" in listener.stdout.readline()
        ended = user.run("fuservice", "mount", "--via=fusermount3", image.path)
        assert ended.code == 0, ended
        point = Path(ended.stdout.rstrip("\n"))
        assert reasons(user) == [None]
        kill(user, [SERVER])
        wait_until(lambda: user.mounts() == [] and not point.exists(), "the end of the mount")
        wait_until(lambda: reasons(user) == ["its server died: signal 9"], "a word on why")
    finally:
        listener.terminate()
        listener.communicate(timeout=20)
    wait_until(lambda: not user.processes(), "the end of all processes")
    (user.runtime / "filesystems").rmdir()  # where its socket was
