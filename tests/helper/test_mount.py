"""From a request to the end: who is asked, in which dialect, how often; and what is written down afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuservice.cli import records
from fuservice.cli.commandline import CommandLine
from fuservice.errors import FuserviceError, NoServiceError, PolicyError, SystemCallError
from fuservice.helper import manifest, mtab, record
from fuservice.helper.mount import mount
from fuservice.linux import prctl
from tests.peers import wire
from tests.peers.server import Listening
from tests.peers.stand import own_run

if TYPE_CHECKING:
    from tests.peers.wire import Wire

SHORT = wire.saft()[:8]  # the draft's hello


@pytest.fixture(autouse=True)
def nothing_of_this_process_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this process dumpable: it is pytest."""
    monkeypatch.setattr(prctl, "set_dumpable", lambda _: None)


def ask(tmp_path: Path, *words: str) -> tuple[FuserviceError | None, list[str]]:
    """Ask for a mount; return the error, and what was said on the way."""
    said: list[str] = []
    try:
        mount(CommandLine(["p", "img", "mnt", "-t", "x", f"--socket-dir={tmp_path}", *words]), said.append)
    except FuserviceError as error:
        return error, said
    return None, said


def serve(tmp_path: Path, *servers: Callable[[Wire], None]) -> threading.Thread:
    """Have *servers* answer one connection each, in order, in a thread; then nobody listens any more."""
    listening = Listening(tmp_path)

    def run() -> None:
        for number, server in enumerate(servers):
            with listening.accept() as conversation:
                if number == len(servers) - 1:
                    listening.close()
                server(conversation)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def current(conversation: Wire) -> None:
    """Greet in the current dialect, and say goodbye."""
    assert conversation.receive().data == wire.saft()
    _agree(conversation)


def draft(conversation: Wire) -> None:
    """Be a draft server: hang up on the longer hello, or greet and say goodbye."""
    if conversation.receive().data == SHORT:
        _agree(conversation)


def _agree(conversation: Wire) -> None:
    conversation.send(wire.last())
    for _ in range(2):
        conversation.receive().close()
    conversation.send(wire.byee(0))
    assert conversation.ends()


def refuse(conversation: Wire) -> None:
    """Hang up at once."""
    conversation.receive()


pytestmark = pytest.mark.needs("root", "fuse")
NOTHING_MOUNTED = "fuse server said goodbye without mounting anything."


@pytest.mark.parametrize(("servers", "words", "says"), [
    ([current], (), NOTHING_MOUNTED), ([current], ("--dialect=current",), NOTHING_MOUNTED),
    ([draft, draft], (), NOTHING_MOUNTED), ([draft], ("--dialect=draft",), NOTHING_MOUNTED),
    ([refuse, refuse], (), "wrong hello reply size 0, expected 8"),
    ([refuse], (), "wrong hello reply size 0, expected 8"), ([refuse], ("--dialect=draft",), "wrong hello reply size 0"),
    ([draft], ("--dialect=current",), "wrong hello reply size 0, expected 8"),
])  # fmt: skip
def test_a_service_is_asked_in_its_dialect_and_at_most_twice(
    tmp_path: Path, servers: list[Callable[[Wire], None]], words: tuple[str, ...], says: str
) -> None:
    thread = serve(tmp_path, *servers)
    error, said = ask(tmp_path, *words)
    thread.join(10)
    assert not thread.is_alive()
    assert says in str(error) and said == []


def test_a_silent_service_is_not_asked_again(tmp_path: Path) -> None:
    began = time.monotonic()
    with Listening(tmp_path):
        error, _ = ask(tmp_path, "--timeout=0.2")
    assert "said nothing for too long" in str(error)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("words", "kind", "code"), [((), NoServiceError, 2), (("--dialect=draft",), SystemCallError, 1)]
)
def test_nobody_there_is_no_service(tmp_path: Path, words: tuple[str, ...], kind: type[Exception], code: int) -> None:
    error, _ = ask(tmp_path, *words)
    assert type(error) is kind and error.exit_code == code
    assert str(error) == "no safe filesystem driver for x available."


@pytest.mark.parametrize(("words", "says"), [
    ((), "no safe filesystem driver for x available."), (("--dialect=draft",), "{}/x: Connection refused"),
])  # fmt: skip
def test_a_socket_that_nobody_listens_on_is_no_service(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    os.mknod(tmp_path / "x", 0o140666)
    assert str(ask(tmp_path, *words)[0]) == says.format(tmp_path)


def test_a_name_that_is_no_socket_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sockets").touch()
    error, _ = ask(tmp_path / "sockets")
    assert isinstance(error, SystemCallError) and str(error) == f"{tmp_path}/sockets/x: Not a directory"


def test_too_many_words_are_told_before_anybody_is_asked(tmp_path: Path) -> None:
    with Listening(tmp_path) as listening:
        error, _ = ask(tmp_path, *["w"] * 1_100)
        assert not listening.asked()
    assert error is not None and error.exit_code == 1 and "at most 1024" in str(error)


def test_a_broken_manifest_is_told_before_anybody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/x").write_text("source")
    monkeypatch.setattr(manifest, "DIRECTORIES", (str(tmp_path / "manifests"),))
    with Listening(tmp_path) as listening:
        error, _ = ask(tmp_path)
        assert not listening.asked()
    assert isinstance(error, PolicyError)


# ---- what is written down ----


@pytest.fixture
def run() -> Iterator[Path]:
    """Give a /run of our own."""
    with own_run():
        yield Path("/run")


def test_a_record_is_read_back(run: Path) -> None:
    facts = {"mount point": "/mnt/a b", "source": "new\nline\\ and \x1b", "type": "é", "since": "1"}
    fd = os.open(run, os.O_PATH | os.O_CLOEXEC)
    record.write(fd, facts)
    record.write(fd, {"mount point": "another"})  # the id is never used twice: nothing is written over
    os.close(fd)
    ((unique, found),) = records.read().items()
    assert found == facts
    records.remove(unique)
    records.remove(unique)
    assert records.read() == {}


def test_what_is_no_record_is_passed_over(run: Path) -> None:
    assert records.read() == {}
    place = run / "fuservice/mounts"
    place.mkdir(parents=True)
    (place / "name").write_text("a\tb")
    (place / "1").write_bytes(b"\xff")
    (place / "2").write_text("no tab\na\tb\tc\n\\9\t\\9")
    (place / "3").mkdir()
    (place / "\u0663").write_text("a\tb")
    assert records.read() == {1: {}, 2: {"a": "b\tc", "\\9": "\\9"}}


def test_a_record_that_cannot_be_written_is_no_failure(run: Path) -> None:
    (run / "fuservice").touch()
    fd = os.open(run, os.O_PATH | os.O_CLOEXEC)
    record.write(fd, {"a": "b"})
    os.close(fd)


@pytest.fixture
def utab(run: Path) -> Path:
    """Give an empty utab."""
    path = run / "mount/utab"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.mark.needs("mtab")
def test_options_for_userspace_are_written_by_mount8(utab: Path) -> None:
    mtab.record("src", "/run", "fuse.x", "user=bob,x-note=a b")
    assert "TARGET=/run" in utab.read_text() and "OPTS=user=bob,x-note=a\\040b" in utab.read_text()


@pytest.mark.parametrize("why", ["-n", "no utab", "no mtab", "no mount", "mount cannot run"])
def test_or_not_at_all(utab: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "no utab":
        utab.unlink()
    elif why == "no mtab":
        monkeypatch.setattr(mtab, "MTAB", "/nonexistent")
    elif why == "no mount":
        monkeypatch.setattr(mtab, "PROGRAMS", ("/nonexistent",))
    elif why == "mount cannot run":
        monkeypatch.setattr(mtab, "PROGRAMS", ("/run",))
    mtab.record("src", "/run", "fuse.x", "-n" if why == "-n" else "x-note")
    assert not utab.exists() or utab.read_text() == ""


def test_a_mount8_that_hangs_is_not_waited_for(utab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "mount"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(mtab, "PROGRAMS", (str(slow),))
    monkeypatch.setattr(mtab, "PATIENCE", 0.2)
    began = time.monotonic()
    mtab.record("src", "/run", "fuse.x", "x-note")
    assert time.monotonic() - began < 5
