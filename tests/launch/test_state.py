"""Records of live servers: what was written is read, whatever it is; what is of the dead is not."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fuservice.launch.state import States, directory, read, read_all, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest


@given(
    st.dictionaries(st.from_regex(r"[a-z.]{1,9}", fullmatch=True), st.text(st.characters(codec="utf-8"), max_size=30))
)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, facts: dict[str, str]) -> None:
    where = str(tmp_path_factory.mktemp("states") / "a/servers")
    os.mkdir(os.path.dirname(where))  # noqa: PTH102, PTH120
    states = States(where)
    facts = {**facts, "start": start_time(os.getpid())}
    states.write(os.getpid(), facts)
    assert read_all(where) == {os.getpid(): facts}
    states.remove(os.getpid())
    states.remove(os.getpid())
    assert os.listdir(where) == []


def test_what_is_of_the_dead_is_not_read_and_goes_with_the_next_listener(tmp_path: Path) -> None:
    where = str(tmp_path / "servers")
    states = States(where)
    pid = os.fork() or os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    states.write(pid, {"start": "1"})  # a zombie
    os.waitpid(pid, 0)
    states.write(os.getpid(), {"start": "1"})  # somebody else had this number
    states.write(os.getppid(), {"start": start_time(os.getppid())})
    (tmp_path / "servers/odd").write_text("start=1\n")
    (tmp_path / "servers/7.new").write_text("begun and never")
    assert list(read_all(where)) == [os.getppid()]
    assert read(where, "nosuch") is None
    States(where)
    assert os.listdir(where) == [str(os.getppid())]


def test_without_a_place_nothing_is_recorded_and_nothing_fails(tmp_path: Path) -> None:
    for where in ("", f"{tmp_path}/missing/above/servers", os.devnull):
        states = States(where)
        states.write(os.getpid(), {"start": "1"})
        states.remove(os.getpid())
        assert read_all(where) == {}


def test_each_user_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert directory() == "/run/fuservice/servers"
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert directory() == "/run/user/7/fuservice-servers"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert directory() == ""
