"""A helper that misbehaves: the server ends by itself, at once, with one line in its log, and nothing of it stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers import wire
from tests.peers.helper import Service, argv_file, service

if TYPE_CHECKING:
    from tests.peers.programs import Ended

pytestmark = pytest.mark.needs("root", "fuse")

OK = wire.repl()
COMMANDS = ["TYPE", "NAME", "MNTP", "DOIT"]
WORDS = ("memtree", "/mnt")


def one_line(ended: Ended) -> str:
    """Return the one line with which a server failed."""
    assert ended.code == 1 and ended.stdout == "", ended
    (line,) = ended.lines
    assert line.isprintable() and line.startswith(("fuse: ", "memtree: "))
    return line.partition(": ")[2]


@pytest.mark.parametrize(("hello", "says"), [
    (b"", "wrong service hello size 0, expected 12"), (b"SAFT", "wrong service hello size 4, expected 12"),
    (b"X" * 12, "service server did not send hello command"), (wire.saft(2, 1), "must be less than max 1"),
    (wire.saft(2, 9), "too new to support version 1"), (wire.saft(0, 0), "too old to support version 1"),
    (wire.saft() + bytes(70_000), "bytes"),
])  # fmt: skip
def test_a_bad_hello_has_no_answer(hello: bytes, says: str) -> None:
    with service() as server:
        server.wire.send(hello)
        assert server.wire.ends(20)
        assert says in one_line(server.program.ended())


def pipe() -> int:
    """Return the reading end of a pipe that nobody will ever write to."""
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def of(content: bytes) -> Callable[[], int]:
    """Return what makes an argv file with *content*."""
    return lambda: argv_file(content)


ARGV: dict[str, tuple[Callable[[], int], str]] = {
    "a pipe": (pipe, "expected a memfd of at most"),
    "a directory": (lambda: os.open("/", os.O_RDONLY), "expected a memfd of at most"),
    "/dev/zero": (lambda: os.open("/dev/zero", os.O_RDONLY), "expected a memfd of at most"),
    "O_PATH": (lambda: os.open("/etc/passwd", os.O_PATH), ""),
    "empty": (of(b""), "expected at least 8"),
    "two megabytes": (of(wire.argv_file(["x" * (2 << 20)])), "at most 1048576 bytes"),
    "no magic": (of(b"SGRA" + bytes(20)), "corrupt"),
    "argc 0": (of(b"ARGS\0\0\0\0"), "argc 0"),
    "argc 2^32 - 1": (of(b"ARGS\xff\xff\xff\xff" + bytes(64)), "argc 4294967295"),
    "a word behind the end": (of(b"ARGS\0\0\0\1\0\0\0\x10\0\0\1\0x\0"), "argv[0]"),
    "a word before the table": (of(b"ARGS\0\0\0\1\0\0\0\0\0\0\0\4x\0"), "argv[0]"),
    "a word at 2^32 - 1": (of(b"ARGS\0\0\0\1\xff\xff\xff\xff\xff\xff\xff\xffx\0"), "argv[0]"),
    "a word without its NUL": (of(b"ARGS\0\0\0\1\0\0\0\x10\0\0\0\2xx"), "expected one NUL"),
    "a NUL inside": (of(b"ARGS\0\0\0\1\0\0\0\x10\0\0\0\3\0x\0"), "expected one NUL"),
}


@pytest.mark.parametrize(("make", "says"), ARGV.values(), ids=ARGV)
def test_an_argv_file_that_is_none_is_not_believed(make: Callable[[], int], says: str) -> None:
    with service() as server:
        server.greet()
        server.give("argv", [make()])
        server.give("fusedev", [os.open("/dev/fuse", os.O_RDWR)])
        assert says in one_line(server.program.ended())


DEVICES = ["/dev/null", "/dev/zero", "/etc/passwd", "/"]


@pytest.mark.parametrize("path", DEVICES)
def test_another_device_is_not_served(path: str) -> None:
    with service() as server:
        server.greet()
        server.give("argv", [argv_file(wire.argv_file(WORDS))])
        server.give("fusedev", [os.open(path, os.O_RDONLY)])
        assert "expected the fuse device (character device 10:229)" in one_line(server.program.ended())


@pytest.mark.parametrize("many", [0, 2, 5, 16])
def test_a_file_is_one_descriptor(many: int) -> None:
    with service() as server:
        server.greet()
        server.give("argv", [argv_file(wire.argv_file(WORDS)) for _ in range(many)])
        assert "descriptor" in one_line(server.program.ended()) or many == 0


@pytest.mark.parametrize("name", ["fusedev", "", "argv\x1b[2J", "argv/../argv", "a" * 60_000])
def test_a_file_has_the_name_that_was_expected(name: str) -> None:
    with service() as server:
        server.greet()
        server.give(name, [argv_file(wire.argv_file(WORDS))])
        assert len(one_line(server.program.ended())) < 250


ANSWERS = {
    "nothing": b"", "another magic": b"REPX\0\0\0\0", "a file": wire.file(0, "x"), "short": b"REPL\0\0", "long": OK + b"\0",
    "errno 4096": wire.repl(4096), "errno 2^32 - 1": wire.repl(0xFFFF_FFFF), "a hello": wire.saft(),
    "a command": wire.byee(0), "100,000 bytes": b"REPL" + bytes(99_996),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("step", [0, 3], ids=["TYPE", "DOIT"])
def test_an_answer_that_is_none_ends_it(answer: bytes, step: int) -> None:
    with service() as server:
        server.open(*WORDS)
        assert server.answer(*[OK] * step, answer) == COMMANDS[: step + 1]
        one_line(server.program.ended())


@pytest.mark.parametrize("step", range(4), ids=COMMANDS)
def test_a_refusal_is_followed_by_goodbye(step: int) -> None:
    with service() as server:
        server.open(*WORDS)
        server.answer(*[OK] * step, wire.repl(errno.EPERM))
        assert server.wire.receive().data == wire.byee(1)
        assert "Operation not permitted" in one_line(server.program.ended())


@pytest.mark.parametrize("step", range(5), ids=["argv", *COMMANDS])
def test_a_helper_that_dies_leaves_no_server(step: int) -> None:
    with service() as server:
        server.greet()
        if step:
            server.give("argv", [argv_file(wire.argv_file(WORDS))])
            server.give("fusedev", [os.open("/dev/fuse", os.O_RDWR)])
            server.answer(*[OK] * (step - 1))
            server.wire.receive()
        server.wire.close()
        one_line(server.program.ended())


def test_a_helper_that_lies_about_the_mount_leaves_no_server() -> None:
    with service() as server:
        server.open(*WORDS)
        assert server.answer(*[OK] * 4) == COMMANDS
        assert server.wire.receive().data == wire.byee(0)
        assert one_line(server.program.ended()) == "the helper said that it had mounted, and it had not"


def test_no_descriptor_comes_with_an_answer() -> None:
    with service() as server:
        server.open(*WORDS)
        server.wire.receive()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            server.wire.send(OK, [null])
        except PermissionError:
            server.wire.close()  # Linux 6.16: the server's end takes none any more
        finally:
            os.close(null)
        one_line(server.program.ended())


def words_that_are_no_request(server: Service, *words: str) -> str:
    """Return the server's complaint about a command line."""
    server.open(*words)
    assert server.wire.receive().data == wire.byee(1)
    return one_line(server.program.ended())


@pytest.mark.parametrize("words", [
    ("memtree",), ("memtree", "a", "b", "/mnt"), ("memtree", "-o", "nosuch", "/mnt"), ("memtree", "--evil", "/mnt"),
    ("memtree", "-o", "\x1b[2J", "/mnt"), ("memtree", "\x1b]0;x\x07", "/mnt"), ("memtree", "-o", "x" * 100_000, "/mnt"),
], ids=lambda words: repr(words)[:40])  # fmt: skip
def test_the_callers_words_are_refused_in_one_line_and_escaped(words: tuple[str, ...]) -> None:
    with service() as server:
        assert len(words_that_are_no_request(server, *words)) < 250


def test_a_server_inherits_nothing_that_it_was_not_given(tmp_path: Path) -> None:
    with service() as server:
        server.open(*WORDS)
        server.wire.receive()
        links = {os.readlink(fd) for fd in Path(f"/proc/{server.program.pid}/fd").iterdir()}  # noqa: PTH115
    strange = {link for link in links if not link.startswith(("pipe:", "socket:", "/dev/null", "/dev/fuse"))}
    assert not strange - {"/memfd:fuse service argv (deleted)"}
