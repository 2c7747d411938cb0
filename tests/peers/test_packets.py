"""Packets that are no packets, too many, too large, with descriptors, or none at all: the conversation ends, in time."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from tests.peers import wire
from tests.peers.stand import FAILED, GONE, SAYS, SILENT, Stand, Talk

pytestmark = pytest.mark.needs("root", "fuse")

ENDS = {
    "nothing": (b"", "fuse server exited without saying goodbye!"),
    "1 byte": (b"B", "wrong command packet size 1, expected at least 4"),
    "3 bytes": (b"BYE", "wrong command packet size 3, expected at least 4"),
    "65,537 bytes": (b"NAME" + b"a" * 65_532 + b"\0", "wrong command packet size 65537, expected less than 65536"),
    "200,000 bytes": (b"NAME" + bytes(199_996), "wrong command packet size 65537, expected less than 65536"),
    "NULs": (bytes(64), "unrecognized packet 0x00000000"),
    "ones": (b"\xff" * 64, "unrecognized packet 0xffffffff"),
    "the other byte order": (b"EEYB\0\0\0\0", "unrecognized packet 0x45455942"),
    "our own hello": (wire.saft(), "unrecognized packet 0x53414654"),
    "the hello reply again": (wire.last(), "unrecognized packet 0x4c415354"),
    "our own reply": (wire.repl(), "unrecognized packet 0x5245504c"),
    "our own file": (wire.file(0, "argv"), "unrecognized packet 0x46494c45"),
    "a command in lower case": (b"byee\0\0\0\0", "unrecognized packet 0x62796565"),
}


@pytest.mark.parametrize(("packet", "says"), ENDS.values(), ids=ENDS)
def test_what_is_no_command_ends_the_conversation(stand: Stand, packet: bytes, says: str) -> None:
    with stand.conversation() as talk:
        talk.open().wire.send(packet)
        assert talk.wire.ends()
        assert talk.ended() == (1, "", f"{SAYS}{says}\n")


@pytest.mark.parametrize(("packet", "says"), ENDS.values(), ids=ENDS)
def test_and_unmounts_what_was_mounted(stand: Stand, packet: bytes, says: str) -> None:
    with stand.conversation() as talk:
        talk.open().agree()
        talk.wire.send(packet)
        assert talk.ended() == (1, "", f"{SAYS}{says}\n")
    assert stand.mounted() == []


HELLOS = {
    "nothing": (b"", "wrong hello reply size 0, expected 8"),
    "1 byte": (b"L", "wrong hello reply size 1, expected 8"),
    "the draft's is as long": (wire.last(padding=0x3030), "nonzero value in padding field"),
    "version 0": (wire.last(0), "unsupported protocol version 0"),
    "version 65535": (wire.last(0xFFFF), "unsupported protocol version 65535"),
    "a command": (wire.byee(0), "x service server did not reply to hello"),
    "70,000 bytes": (b"LAST" + bytes(69_996), "wrong hello reply size 65537, expected 8"),
}


@pytest.mark.parametrize(("packet", "says"), HELLOS.values(), ids=HELLOS)
def test_who_does_not_answer_hello_gets_nothing(stand: Stand, packet: bytes, says: str) -> None:
    with stand.conversation() as talk:
        talk.wire.receive()
        talk.wire.send(packet)
        assert talk.wire.ends()  # neither argv nor the fuse device
        assert talk.ended() == (1, "", f"{SAYS}{says}\n")


def test_the_largest_packet_is_read(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open().play([(b"NAME" + b"a" * 65_531 + b"\0", wire.repl())])
        assert talk.goodbye() == (1, "", FAILED + "\n")


def test_ten_thousand_packets_are_not_read(stand: Stand) -> None:
    with stand.conversation("--timeout=20") as talk:
        talk.open()
        answered = 0
        for _ in range(10_000):
            try:
                answered += talk.wire.ask(wire.type_(2)) == wire.repl(22)
            except (BrokenPipeError, ConnectionResetError):
                break
        ended = talk.ended()
    assert answered == 256
    assert ended.code == 1 and len(ended.lines) == 22  # 20 complaints, that there are more, and the end
    assert ended.lines[20] == SAYS + "more complaints are not shown"
    assert ended.lines[21].startswith(SAYS + "fuse server talks too much: 257 packets")


def test_a_megabyte_is_not_read(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open()
        answered = 0
        for _ in range(64):
            try:
                answered += talk.wire.ask(wire.opts("a" * 65_500)) == wire.repl(22)
            except (BrokenPipeError, ConnectionResetError):
                break
        ended = talk.ended()
    assert answered == 16
    assert ended.code == 1 and ended.lines[-1].startswith(SAYS + "fuse server talks too much: 17 packets")


def test_who_does_not_read_the_answers_is_not_waited_for(stand: Stand) -> None:
    began = time.monotonic()
    with stand.conversation("--timeout=1") as talk:
        talk.open()
        with contextlib.suppress(ConnectionError):  # it gives up while we still send
            for _ in range(12):  # each answer holds the path: 12 do not fit in a socket
                talk.wire.send(wire.open_("/a" * 32_000, request=1))
        ended = talk.ended()
    assert (ended.code, ended.lines[-1]) == (1, SAYS + "fuse server does not read what we send: giving up")
    assert time.monotonic() - began < 4


def test_commands_in_a_row_are_answered_in_a_row(stand: Stand) -> None:
    with stand.conversation() as talk:
        talk.open()
        packets = [wire.type_(), wire.name(), wire.name(), wire.mntp(stand.point), wire.opts("fd=0"), wire.doit()]
        for packet in (*packets, wire.byee()):
            talk.wire.send(packet)
        answers = [talk.wire.receive().data for _ in packets]
        assert answers == [wire.repl(error) for error in (0, 0, 22, 0, 22, 0)]
        assert talk.ended().code == 0
    stand.settle()


# ---- descriptors ----


@pytest.mark.parametrize("many", [1, 4, 16])
@pytest.mark.parametrize("when", ["hello", "OPEN", "DOIT", "BYEE"])
def test_no_descriptor_of_a_servers_reaches_the_helper(stand: Stand, when: str, many: int) -> None:
    with stand.conversation() as talk:
        reading, writing = os.pipe()
        try:
            _with_descriptors(talk, when, [writing] * many)
        finally:
            os.close(writing)
        # Whoever had got one would keep the pipe open.
        assert os.read(reading, 1) == b""
        os.close(reading)
        talk.hang_up()
        assert talk.ended().code == 1
    assert stand.mounted() == []


def _with_descriptors(talk: Talk, when: str, fds: list[int]) -> None:
    if when == "hello":
        talk.wire.receive()
    else:
        talk.open()
        if when != "OPEN":
            talk.agree(doit=None)
    packet = {"hello": wire.last(), "OPEN": wire.open_(str(talk.stand.image)), "DOIT": wire.doit(), "BYEE": wire.byee()}
    try:
        talk.wire.send(packet[when], fds)
    except PermissionError:
        return
    talk.wire.receive().close()  # a kernel before 6.16 delivers the packet; the descriptors are dropped all the same


# ---- silence ----

#: How far a server goes before it falls silent.
SILENCES = ["nothing", "hello", "TYPE", "NAME", "MNTP", "OPTS", "OPEN", "DOIT"]


def go(talk: Talk, how_far: str) -> None:
    """Be honest up to and including *how_far*."""
    stand = talk.stand
    if how_far == "nothing":
        return
    talk.open()
    packets = {
        "OPEN": (wire.open_(str(stand.image)), wire.file(0, str(stand.image))), "TYPE": (wire.type_(), wire.repl()),
        "NAME": (wire.name(), wire.repl()), "MNTP": (wire.mntp(stand.point), wire.repl()),
        "OPTS": (wire.opts("max_read=4096"), wire.repl()), "DOIT": (wire.doit(), wire.repl()),
    }  # fmt: skip
    for name, step in packets.items() if how_far != "hello" else ():
        talk.play([step])
        if name == how_far:
            return


@pytest.mark.parametrize("after", SILENCES)
def test_silence_has_an_end(stand: Stand, after: str) -> None:
    began = time.monotonic()
    with stand.conversation("--timeout=1") as talk:
        go(talk, after)
        assert talk.wire.ends() if after != "nothing" else talk.wire.receive().data
        ended = talk.ended()
    assert 1 <= time.monotonic() - began < 4
    assert ended == (1, "", SILENT + "\n")
    assert stand.mounted() == []


def test_a_server_that_nobody_accepts_for_is_not_waited_for(stand: Stand) -> None:
    """The connection lies in the backlog; to the helper that is a service that says nothing."""
    began = time.monotonic()
    with stand.conversation("--timeout=1") as talk:
        assert talk.ended() == (1, "", SILENT + "\n")
    assert time.monotonic() - began < 4


# ---- deaths ----


@pytest.mark.parametrize("after", SILENCES)
def test_a_server_that_dies_takes_everything_with_it(stand: Stand, after: str) -> None:
    with stand.conversation() as talk:
        go(talk, after)
        talk.hang_up()
        ended = talk.ended()
    says = GONE if after != "nothing" else SAYS + "wrong hello reply size 0, expected 8"
    assert ended == (1, "", says + "\n")
    assert stand.mounted() == []


@pytest.mark.parametrize("after", SILENCES)
def test_a_helper_that_dies_leaves_nothing_but_a_whole_mount(stand: Stand, after: str) -> None:
    with stand.conversation() as talk:
        go(talk, after)
        talk.program.kill()
        # So the server knows, and ends. A helper that was killed at once may have said hello, or not.
        assert talk.wire.ends() or (after == "nothing" and talk.wire.ends())
        assert talk.ended().code == -9
        assert [mount.fstype for mount in stand.mounted()] == (["fuse.x"] if after == "DOIT" else [])
    stand.detach()
