"""``fuservice listen`` as people type it: sentences, exit codes, and mounts that outlive it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuservice.cage.plan import WALLS
from fuservice.cli.main import main
from fuservice.cli.warm import load
from fuservice.launch.child import Starter
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.linux.listener import Listener
from tests.launch.listening import Listening
from tests.launch.test_activator import is_gone
from tests.support import kernel
from tests.support.capabilities import PROGRAMS
from tests.support.processes import status
from tests.support.waiting import holds_within, wait_until

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SOMEBODY = 4242  # not the number that the kernel shows for users who do not exist in a namespace
needs_root = pytest.mark.needs("root", "installed")
Listen = Callable[..., Listening]


def typed(*words: str | Path, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Return exit code, output and complaints of ``fuservice listen`` with these words."""
    command = [*before, PROGRAMS / "fuservice", "listen", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, cwd="/")
    return done.returncode, done.stdout, done.stderr


def complained(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str]:
    """Return exit code and last complaint of the same, carried out in this process; it must not get as far as listening."""
    try:
        code: int | str | None = main(["listen", *words])
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "fuservice: listen: which types? There are ext2, ext3, ext4, memtree"),
        (["memtree", "--nosuch"], "fuservice: unrecognized arguments: --nosuch"),
        (["memtree", "--socket-mode=9"], "fuservice listen: argument --socket-mode: invalid octal mode value: '9'"),
        (
            ["memtree", "--socket-mode=7777"],
            "fuservice listen: argument --socket-mode: invalid octal mode value: '7777'",
        ),
        (["memtree", "--per-uid=0"], "fuservice listen: argument --per-uid: invalid count value: '0'"),
        (
            ["memtree", "--cage=-pid,net"],
            f"fuservice: --cage=-pid,net: expected -WALL,-WALL…, walls to leave out of {', '.join(WALLS)}",
        ),
        (["memtree", "--socket-mode=-1"], "fuservice listen: argument --socket-mode: invalid octal mode value: '-1'"),
        (["nosuch"], "fuservice: no driver for type `nosuch': there are ext2, ext3, ext4, memtree"),
        (
            ["memtree", "../x"],
            "fuservice: `../x' is no type name: expected 1 to 64 of the characters A-Z a-z 0-9 . _ + -",
        ),
        ([".."], "fuservice: `..' is no type name: expected 1 to 64 of the characters A-Z a-z 0-9 . _ + -"),
        ([""], "fuservice: `' is no type name: expected 1 to 64 of the characters A-Z a-z 0-9 . _ + -"),
        (["a\x1b[m"], r"fuservice: `a\x1b[m' is no type name: expected 1 to 64 of the characters A-Z a-z 0-9 . _ + -"),
    ],
)
def test_what_cannot_be_carried_out_is_64_and_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complained(capsys, *words) == (64, sentence)


def test_dry_run_prints_the_cage_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["listen", "memtree", "--dry-run", f"--socket-dir={tmp_path}/sockets"]
    assert main(words) == 0
    whole = capsys.readouterr().out.splitlines()
    assert whole == [operation.describe() for operation in load("memtree").cage(Starter(), ())]
    assert main([*words, "--cage=-landlock,-seccomp"]) == 0
    assert len(whole) - len(capsys.readouterr().out.splitlines()) == 2
    assert not (tmp_path / "sockets").exists()


@pytest.mark.needs("nobody-python", "installed")
def test_who_has_no_runtime_directory_must_say_where() -> None:
    code, out, complaint = typed("memtree", before=("env", "-u", "XDG_RUNTIME_DIR", *NOBODY))
    assert (code, out) == (1, "")
    assert complaint == (
        "fuservice: listen: where shall the sockets be? There is no XDG_RUNTIME_DIR; say --socket-dir=DIR\n"
    )
    assert typed("memtree", "--dry-run", before=NOBODY)[0] == 0


@needs_root
@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda place: place.mkdir(mode=0o777) or place.chmod(0o775), "a socket directory must be root's or yours"),
        (lambda place: place.touch(), "File exists"),
        (lambda place: (place / "ext2").mkdir(parents=True), "ext2: is in the way, and is not a socket"),
    ],
    ids=["group-writable", "a file", "something in the way"],
)
def test_a_place_that_will_not_do_is_named(prepare: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    place = tmp_path / "sockets"
    prepare(place)
    code, out, complaint = typed("memtree", "ext2", f"--socket-dir={place}")
    assert (code, out) == (1, "")
    assert sentence in complaint and complaint.startswith(f"fuservice: {place}") and complaint.count("\n") == 1
    assert not (place / "memtree").exists()  # the first type's socket went with the second's failure


@needs_root
def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    name = "x" * (108 - len(f"{tmp_path}//memtree"))  # one byte more than a socket's address has room for
    code, _, complaint = typed("memtree", f"--socket-dir={tmp_path}/{name}")
    assert code == 1 and complaint.endswith("x/memtree: cannot listen there: File name too long\n")


@needs_root
def test_somebody_who_listens_already_is_left_alone(tmp_path: Path) -> None:
    listener = Listener(f"{tmp_path}/memtree", 0o600)
    code, _, complaint = typed("memtree", f"--socket-dir={tmp_path}")
    assert (code, complaint) == (1, f"fuservice: {tmp_path}/memtree: somebody listens there already\n")
    FdSeqPacket.connect(listener.path, 1.0).close()
    listener.close()


# ---- listening ----


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Listen]:
    """Give a function that runs ``fuservice listen`` with some words, in a directory for the test."""
    started: list[Listening] = []

    def run(*words: str, before: tuple[str, ...] = ()) -> Listening:
        command = [*before, os.fspath(PROGRAMS / "fuservice"), "listen", f"--socket-dir={tmp_path}/sockets", *words]
        started.append(Listening(command, tmp_path / "log", tmp_path / "sockets"))
        started[-1].wait_for("listening on ")
        return started[-1]

    yield run
    for listening in started:
        listening.program.stop()


@needs_root
def test_it_says_where_it_listens_and_with_which_mode(listen: Listen) -> None:
    listening = listen("memtree", "ext4", "--socket-mode=660")
    said = listening.wait_for("/ext4\n")
    assert said == "".join(f"listening on {listening.directory}/{name}\n" for name in ("memtree", "ext4"))
    assert {stat.S_IMODE(p.lstat().st_mode) for p in listening.directory.iterdir()} == {0o660}
    assert listening.program.stop() == 0


@needs_root
def test_a_stale_socket_is_replaced(tmp_path: Path, listen: Listen) -> None:
    (tmp_path / "sockets").mkdir()
    Listener(f"{tmp_path}/sockets/memtree", 0o600).close()
    listening = listen("memtree")
    listening.connect("memtree").close()


Mounted = tuple[Listening, Path]


@pytest.fixture
def memtree(listen: Listen, mount_point: Path) -> Mounted:
    """Give a listener and a mount that was made through it."""
    listening = listen("memtree")
    helper = [
        os.fspath(PROGRAMS / "fuservicemount"),
        os.fspath(mount_point),
        "-t",
        "memtree",
        f"--socket-dir={listening.directory}",
    ]
    done = subprocess.run(helper, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return listening, mount_point


def works(point: Path) -> bool:
    """Say whether the mount answers."""
    return (point / "hello").read_bytes().startswith(b"Hello") and sorted(os.listdir(point)) == [
        "again", "deep", "hello", "link",
    ]  # fmt: skip


@pytest.mark.needs("root", "fuse", "installed")
def test_told_to_end_it_waits_for_the_mount_and_listens_no_more(memtree: Mounted) -> None:
    listening, point = memtree
    assert works(point)
    listening.signal(signal.SIGTERM)
    wait_until(lambda: os.listdir(listening.directory) == [], "the sockets to be gone")
    assert not holds_within(0.2, listening.program.ended)
    assert works(point)
    kernel.umount2(os.fspath(point))
    wait_until(listening.program.ended, "the end")
    assert listening.program.stop() == 0


@pytest.mark.needs("root", "fuse", "installed")
@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGTERM, signal.SIGINT]], ids=["killed", "told twice"])
def test_without_it_no_server_is_left_and_the_mount_answers_with_an_error_if_it_is_there(
    memtree: Mounted, signals: list[int]
) -> None:
    listening, point = memtree
    (server,) = listening.servers()
    for number in signals:
        listening.signal(number)
        wait_until(lambda: listening.program.ended() or os.listdir(listening.directory) == [], "the signal to arrive")
    wait_until(listening.program.ended, "the end")
    wait_until(lambda: is_gone(server), "the server's end")
    if signals == [signal.SIGKILL]:
        with pytest.raises(OSError, match="not connected"):
            os.listdir(point)
        kernel.umount2(os.fspath(point))
    assert os.listdir(point) == []


@needs_root
def test_a_log_that_nobody_reads_is_no_reason_to_end(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = [os.fspath(PROGRAMS / "fuservice"), "listen", "memtree", f"--socket-dir={tmp_path}/sockets"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writing, text=True) as listener:
        assert listener.stdout is not None and listener.stdout.readline().startswith("listening on ")
        os.close(writing)
        os.close(reading)
        for _ in range(3):
            with FdSeqPacket.connect(f"{tmp_path}/sockets/memtree", 5.0) as connection:
                connection.send(b"nonsense")
                assert connection.receive(100) == b""  # the server said what it thinks of that, to nobody
        listener.terminate()
        assert listener.wait(10) == 0


# ---- as another user than root ----


@pytest.mark.needs("root", "nobody-python", "userns", "installed")
def test_a_plain_user_listens_in_the_runtime_directory_and_contains_servers_in_a_user_namespace(tmp_path: Path) -> None:
    """The directory is passed on open: a user may search it, but not what is above it."""
    place = Path(tempfile.mkdtemp(prefix="fuservice-"))
    os.chown(place, SOMEBODY, SOMEBODY)
    become = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
    command = ["env", f"XDG_RUNTIME_DIR={place}", *become, os.fspath(PROGRAMS / "fuservice"), "listen", "memtree"]
    listening = Listening(command, tmp_path / "log", place / "filesystems")
    try:
        listening.wait_for("listening on ")
        assert stat.S_IMODE(listening.directory.stat().st_mode) == 0o700
        with listening.connect("memtree"):
            listening.wait_for_servers(1)
            (server,) = listening.servers()
            wait_until(lambda: status(server)["Seccomp"] == "2", "the cage")
            assert status(server)["Uid"].split() == [str(SOMEBODY)] * 4
            assert int(status(server)["CapPrm"], 16) == 0 and status(server)["NSpid"].split() == [str(server), "1"]
            assert os.listdir(place / "fuservice-servers") == [str(server)]
        listening.wait_for_servers(0)
        assert listening.program.stop() == 0
        assert os.listdir(place / "fuservice-servers") == os.listdir(place / "filesystems") == []
    finally:
        listening.program.stop()
        for directory in filter(Path.exists, (place / "fuservice-servers", place / "filesystems", place)):
            directory.rmdir()


# ---- under a service manager ----

#: Binds argv[2] sockets below argv[1], passes them on as systemd does, named by argv[3], and executes the rest.
MANAGER = """
import os, socket, sys
listening = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(int(sys.argv[2]))]
for place, one in enumerate(listening):
    one.bind(f"{sys.argv[1]}/{['memtree', 'socket'][place]}")
    one.listen()
    os.dup2(one.fileno(), 100 + place)
for place in range(len(listening)):
    os.dup2(100 + place, 3 + place)
os.environ.update(LISTEN_FDS=str(len(listening)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=sys.argv[3])
os.execv(sys.argv[4], sys.argv[4:])
"""


@needs_root
def test_sockets_of_a_service_manager_are_used_and_left_and_it_is_told_how_we_are(tmp_path: Path) -> None:
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.settimeout(5)
    notified.bind(f"{tmp_path}/notify")
    environment = [f"NOTIFY_SOCKET={tmp_path}/notify"]
    command: list[str | Path] = ["env", *environment, sys.executable, "-c", MANAGER, tmp_path, "2", "whatever:ext4"]
    listening = Listening([*command, PROGRAMS / "fuservice", "listen"], tmp_path / "log", tmp_path)
    with notified:
        try:
            assert notified.recv(100) == b"READY=1\nSTATUS=serving memtree, ext4\n"
            for name in ("memtree", "socket"):
                listening.connect(name).close()
            listening.signal(signal.SIGHUP)
            assert notified.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert notified.recv(100).startswith(b"READY=1\n")
            listening.connect("memtree").close()
            listening.signal(signal.SIGTERM)
            assert notified.recv(100).startswith(b"STOPPING=1\nSTATUS=waiting for ")
            wait_until(listening.program.ended, "the end")
            assert {"memtree", "socket"} <= set(os.listdir(tmp_path))
        finally:
            assert listening.program.stop() == 0


@needs_root
def test_what_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, sys; os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
               "os.dup2(0, 3); os.execv(sys.argv[1], sys.argv[1:])"]  # fmt: skip
    code, _, complaint = typed("memtree", f"--socket-dir={tmp_path}", before=(*command,))
    assert (code, complaint) == (
        1,
        "fuservice: the socket that was passed as number 1: Socket operation on non-socket (for Accept=yes there is "
        "`fuservice serve')\n",
    )
