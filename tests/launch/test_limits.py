"""Limits: servers in all and for each user, a deadline for the hello, and one user's crowd beside another user."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.launch.listening import Listening
from tests.launch.toys import QUICK
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("root")

Start = Callable[..., Listening]
NOBODY = 65_534

#: Connects as NOBODY to the socket argv[1], argv[2] times, says how often that went well, and waits for the end of its input.
CROWD = f"""
import os, socket, sys
os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
crowd = []
for _ in range(int(sys.argv[2])):
    crowd.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    crowd[-1].connect(sys.argv[1])
print(len(crowd), flush=True)
sys.stdin.read()
"""


@contextmanager
def crowd(listening: Listening, name: str, size: int) -> Iterator[None]:
    """Have *size* silent connections of another user."""
    path = listening.directory / name
    path.chmod(0o666)
    command = [sys.executable, "-I", "-c", CROWD, f"./{name}", str(size)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=listening.directory) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"%d\n" % size
        yield
        process.stdin.close()


def test_beyond_the_most_servers_connections_are_closed_and_later_ones_served(start: Start) -> None:
    """140 descriptors suffice for 10 servers: the next ones are refused, none waits, and nothing needs a restart."""
    listening = start(before=("prlimit", "--nofile=140:140"))
    with ExitStack() as stack:
        connections = [stack.enter_context(listening.connect("hold")) for _ in range(15)]
        answers = [connection.receive(100) for connection in connections]
        assert answers == [b"serving"] * 10 + [b""] * 5
        assert "4 hold: refused uid 0: 10 servers are alive, which is the most" in listening.program.said()
        before = listening.cpu()
        time.sleep(0.3)
        assert listening.cpu() - before < 0.15
    listening.wait_for_servers(0)
    assert listening.ask("hold") == b"serving"


def test_a_users_limit_is_nobody_elses_and_refusals_are_told_sparingly(start: Start) -> None:
    listening = start("per_uid=3")
    with crowd(listening, "hold", 40):
        listening.wait_for_servers(3)
        assert listening.ask("hold") == b"serving"
        said = listening.wait_for("refused")
        words = f"4 hold: refused uid {NOBODY}, which has 3 servers: more are not allowed to one user"
        assert [line for line in said.splitlines() if "refused" in line] == [words] * 5
    listening.wait_for_servers(0)
    with crowd(listening, "hold", 3):
        listening.wait_for_servers(3)


def test_root_and_the_listeners_own_user_have_a_wider_limit(start: Start) -> None:
    listening = start("per_uid=2")
    with ExitStack() as stack:
        connections = [stack.enter_context(listening.connect("hold")) for _ in range(20)]
        assert sum(connection.receive(100) == b"serving" for connection in connections) == 16


def test_a_connection_that_says_nothing_is_ended_within_the_deadline(listening: Listening) -> None:
    with listening.connect("memtree") as silent:
        begun = time.monotonic()
        assert silent.receive(100) == b""
        assert QUICK * 0.9 < time.monotonic() - begun < QUICK + 2
    said = listening.wait_for("server ended with exit status 1")
    assert "the helper said nothing for" in said


def test_connections_that_are_gone_at_once_are_nothing(listening: Listening) -> None:
    for _ in range(20):
        listening.connect("memtree").close()
    assert listening.ask("hold") == b"serving"
    listening.wait_for_servers(0)


def test_a_thousand_silent_connections_of_one_user_do_not_delay_another(start: Start) -> None:
    listening = start()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_000:
        pytest.skip("too few descriptors for a crowd")
    began = time.monotonic()
    with crowd(listening, "hold", 1_000):
        connected = time.monotonic()
        assert listening.ask("hold") == b"serving"
        print(
            f"1,000 connected in {connected - began:.2f} s; another user was served after {time.monotonic() - connected:.3f} s"
        )
        assert time.monotonic() - connected < 1
        listening.wait_for_servers(32)
    wait_until(lambda: not listening.servers(), "the end of the crowd")
