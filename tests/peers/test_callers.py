"""A caller who types too much, or what nobody knows: told in one sentence, before or after the server is asked."""

from __future__ import annotations

import os
import time

import pytest

from tests.peers import wire
from tests.peers.helper import service
from tests.peers.programs import Program, helper_command
from tests.peers.server import Listening
from tests.peers.stand import FAILED, NO_MOUNT, SAYS, Stand

pytestmark = pytest.mark.needs("root", "fuse")


def test_300_kib_of_words_reach_the_server(stand: Stand) -> None:
    words = ["-o", "a" * (100 << 10), "-o", "b" * (100 << 10), "-o", "c" * (100 << 10)]
    with stand.conversation(*words) as talk:
        opening = talk.open().opening
        assert opening is not None
        content = os.pread(opening.argv.fds[0], 1 << 20, 0)
        assert all(word.encode() in content for word in words)
        assert talk.goodbye(0).lines == [NO_MOUNT]


@pytest.mark.parametrize(("words", "says"), [
    (["w"] * 1_030, "1033 arguments, at most 1024 can be passed to a service"),
    (["w" * (120 << 10)] * 9, "bytes of arguments, at most 1048576 can be passed to a service"),
])  # fmt: skip
def test_more_is_told_without_asking_anybody(stand: Stand, words: list[str], says: str) -> None:
    with Listening(stand.sockets) as listening:
        with Program(helper_command(stand.words(*words))) as program:
            ended = program.ended()
        assert not listening.asked()
    assert ended.code == 1 and len(ended.lines) == 1 and ended.lines[0].endswith(says)


@pytest.mark.parametrize("words", [("--timeout=0",), ("--timeout=never",), ("--dialect=klingon",)])
def test_what_is_ours_and_wrong_is_told_without_asking_anybody(stand: Stand, words: tuple[str, ...]) -> None:
    with Listening(stand.sockets) as listening:
        with Program(helper_command(stand.words(*words))) as program:
            ended = program.ended()
        assert not listening.asked()
    assert ended.code == 1 and len(ended.lines) == 1 and ended.lines[0].startswith(f"{SAYS}{words[0]}: expected ")


def test_an_option_that_nobody_knows_is_the_servers_to_refuse(stand: Stand) -> None:
    with stand.conversation("-o", "nosuchoption,x\x1b[2J") as talk:
        talk.open()
        with service() as server:
            server.open("memtree", "-o", "nosuchoption", str(stand.point))
            assert server.wire.receive().data == wire.byee(1)
            log = server.program.ended().stderr
        assert talk.goodbye(1) == (1, "", FAILED + "\n")
    assert "unknown option(s): `-o nosuchoption'" in log


def test_nobody_listens_is_the_one_exit_code_2(stand: Stand) -> None:
    began = time.monotonic()
    with Program(helper_command(stand.words())) as program:
        assert program.ended() == (2, "", f"{SAYS}no safe filesystem driver for x available.\n")
    assert time.monotonic() - began < 5
