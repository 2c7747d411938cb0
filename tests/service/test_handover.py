"""Finding the socket that a process was started with, and the stub where there can be none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from fuservice.errors import RemoteProtocolError
from fuservice.service.handover import connected_socket
from tests.linux.children import Said, in_child
from tests.support.capabilities import REPOSITORY

VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def handed(make: Callable[[], int | None], **changes: str) -> Said:
    """Return what connected_socket() does in a process whose descriptor 3 is what *make* returns (None: closed)."""

    def child() -> Said:
        found = make()
        if found is None:
            os.closerange(3, 4)
        else:
            os.dup2(found, 3, inheritable=True)
        environment = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "connection", "LEFT": "x"}
        environment |= changes
        environment = {name: value for name, value in environment.items() if value != "absent"}
        try:
            connection = connected_socket(environment)
        except RemoteProtocolError as error:
            return [str(error), list(environment)]
        if connection is None:
            return [None, list(environment)]
        connection.send(b"found")
        return [connection.fileno(), os.get_inheritable(3), list(environment)]

    # The child's copy of the pipe to us may be number 3: out of the way.
    spare = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(4)]
    try:
        return in_child(child)
    finally:
        for fd in spare:
            os.close(fd)


def pair() -> int:
    """Return one end of a connection, whose other end stays open as long as the process."""
    kept, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept.detach()
    return end.detach()


def test_the_connection_is_descriptor_3_and_no_child_inherits_it() -> None:
    assert handed(pair) == [3, False, ["LEFT"]]


def test_the_names_of_the_descriptors_do_not_matter() -> None:
    assert handed(pair, LISTEN_FDNAMES="absent") == [3, False, ["LEFT"]]


@pytest.mark.parametrize(
    "changes",
    [{"LISTEN_FDS": "absent"}, {"LISTEN_FDS": ""}, {"LISTEN_PID": "absent"}, {"LISTEN_PID": "1"}, {"LISTEN_PID": "x"}],
    ids=str,
)
def test_without_them_or_with_anothers_this_is_no_service(changes: dict[str, str]) -> None:
    assert handed(pair, **changes) == [None, ["LEFT"]]


@pytest.mark.parametrize("count", ["2", "0", "-1", "many"])
def test_any_other_number_of_sockets_is_a_failure(count: str) -> None:
    assert handed(pair, LISTEN_FDS=count) == [f"can only handle 1 service socket, got {count}.", ["LEFT"]]


def listening() -> int:
    """Return a listening socket, as a unit without Accept=yes would give."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    raw.bind("")
    raw.listen()
    return raw.detach()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: os.open(os.devnull, os.O_RDONLY), "Socket operation on non-socket"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach(), "not an AF_UNIX SOCK_SEQPACKET socket"),
        (listening, "Transport endpoint is not connected"),
        (lambda: None, "Bad file descriptor"),
    ],
    ids=["a file", "a stream", "a listening socket", "closed"],
)
def test_what_is_no_connection_is_a_failure(make: Callable[[], int | None], why: str) -> None:
    sentence = f"service socket: {why}, expected a connected AF_UNIX SEQPACKET socket"
    assert handed(make) == [sentence, ["LEFT"]]


# ---- where the platform cannot do it ----

STUB = """
import errno, sys

sys.platform = "win32"
for name in ("fcntl", "_socket", "socket", "ctypes", "_ctypes", "resource"):
    sys.modules[name] = None  # import raises ImportError
sys.path.append({src!r})

import fuservice.service as s

def unsupported(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP
    return False

class Mine(s.Driver):
    name = "mine"

names = [n for n in {public!r} if not n.startswith("_")]
calls = [getattr(s.Service, n) for n in names] + [s.Service, s.CommandLine, s.Driver, Mine]
calls += [s.parse_cmdline_opts, s.service_main]
print(len(calls), all(unsupported(call) for call in calls), all(unsupported(call, 1, 2) for call in calls[:-4]))
print(sorted(s.__all__))
"""


def test_elsewhere_everything_imports_and_every_call_says_so() -> None:
    from fuservice import service

    public = [name for name in vars(service.Service) if not name.startswith("_")]
    assert len(public) > 15
    code = STUB.format(src=os.fspath(REPOSITORY / "src"), public=public)
    done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.stderr == ""
    counted, names = done.stdout.splitlines()
    assert counted == f"{len(public) + 6} True True"
    assert names == str(sorted(service.__all__))
