"""The table of states: every state has its row, every message its place, and the document shows the same."""

from __future__ import annotations

import subprocess
import sys

from fuservice.proto import messages as m
from fuservice.proto.states import BEFORE_MOUNT, ONCE, TRANSITIONS, State, step
from tests.support.capabilities import REPOSITORY

DOCUMENT = REPOSITORY / "docs/protocol.md"
SCRIPT = REPOSITORY / "scripts/protocol_tables.py"


def test_every_state_has_a_row_and_every_row_leads_to_a_state() -> None:
    states = {value for value in vars(State).values() if isinstance(value, State)}
    assert set(TRANSITIONS) == states
    assert {following for row in TRANSITIONS.values() for following in row.values()} <= states
    assert len({state.name for state in states}) == len(states) == 7


def test_every_state_can_be_reached_and_only_closed_is_an_end() -> None:
    reached, todo = {State.CONNECTED}, [State.CONNECTED]
    for state in todo:
        new = set(TRANSITIONS[state].values()) - reached
        reached |= new
        todo += new
    assert reached == set(TRANSITIONS)
    assert [state for state, row in TRANSITIONS.items() if not row] == [State.CLOSED]


def test_every_message_but_the_reply_has_a_place() -> None:
    placed = {kind for row in TRANSITIONS.values() for kind in row}
    assert placed == {m.Hello, m.HelloReply, m.File, *m.COMMANDS}


def test_the_service_speaks_only_where_it_is_its_turn() -> None:
    for state in TRANSITIONS:
        allowed = {kind for kind in m.COMMANDS if step(state, kind)}
        assert allowed == {State.READY: set(m.COMMANDS), State.MOUNTED: {m.Goodbye}}.get(state, set())


def test_nothing_but_goodbye_follows_a_mount() -> None:
    assert dict(TRANSITIONS[State.MOUNTED]) == {m.Goodbye: State.CLOSED}


def test_what_happens_once_is_what_describes_the_mount() -> None:
    assert set(ONCE) == {m.SetType, m.SetSource, m.SetMountPoint, m.SetOptions, m.SetMtab}
    assert set(BEFORE_MOUNT) == {m.SetSource, m.SetMountPoint}
    assert set(BEFORE_MOUNT) <= set(ONCE)


def test_the_document_shows_the_tables_of_the_code() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_document_shows_every_number() -> None:
    text = DOCUMENT.read_text()
    for kind in (*m.HELPER_SENDS, *m.SERVICE_SENDS):
        assert f"{kind.magic:#010x}" in text
    for state in TRANSITIONS:
        assert f"| {state.name} |" in text
