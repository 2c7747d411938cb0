"""One half of a recording, played against a program of ours that is to behave like the other half."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers import wire
from tests.peers.programs import SOURCES, Ended, Program, caller, helper_command
from tests.peers.server import Listening
from tests.replay import stage
from tests.replay.outcome import Outcome
from tests.replay.transcripts import TO_HELPER, TO_SERVER, UTAB, RecordedFd, RecordedPacket, Transcript, heard, is_draft
from tests.support.capabilities import REPOSITORY

if TYPE_CHECKING:
    from tests.peers.wire import Wire

SERVER = (
    f"import sys; sys.path[:0] = [{SOURCES!r}, {os.fspath(REPOSITORY)!r}]; "
    "from tests.replay.servers import main; sys.exit(main(sys.argv[1:]))"
)

#: How long a program may take to send what it was recorded to send, and to hang up.
PATIENCE = 5.0
#: How long we look whether it hangs up where we know that it will not.
A_MOMENT = 0.3


class Half:
    """The scripted half: it sends what was recorded in *direction*, and notes what the other half says."""

    def __init__(self, transcript: Transcript, conversation: Wire, direction: str, *, waits: bool = False) -> None:
        """*waits*: the program under test will wait where the recorded one hung up."""
        self._packets, self._wire, self._direction = transcript["packets"], conversation, direction
        self._patience = A_MOMENT if waits else PATIENCE
        self._over = False
        #: Descriptors that came: kept to the end, as a real peer would. One that is opened exclusively keeps others out.
        self._kept: list[int] = []
        self.heard: dict[int, str] = {}
        self.refused: list[int] = []
        self.hung_up = True

    def play(self) -> None:
        """Play to the end of the recording, and hang up."""
        try:
            with self._wire:
                self._play()
        finally:
            for fd in self._kept:
                os.close(fd)

    def _play(self) -> None:
        # Whoever dies with the greeting unread makes the other side's next receive fail, not end: do the same.
        if any(p.get("event") == "reset" for p in self._packets):
            self.heard[0] = str(self._wire.peek())
            return
        for packet in self._packets:
            if not self._over:
                self._step(packet)

    def _step(self, packet: RecordedPacket) -> None:
        event, ours = packet.get("event", ""), packet["dir"] == self._direction
        if event.startswith("send error"):
            self._send(packet["n"], *self._what_was_refused())
        elif event and ours:
            self._wire.shut_down()
            self._over = True
        elif event:
            self.hung_up = not self._hear(packet["n"], self._patience)
        elif ours:
            fds = [_open_as_recorded(fd) for fd in packet.get("fds", [])]
            self._send(packet["n"], bytes.fromhex(packet["hex"]), fds)
        else:
            self._hear(packet["n"], PATIENCE)

    def _send(self, step: int, data: bytes, fds: list[int]) -> None:
        try:
            self._wire.send(data, fds)
        except PermissionError:  # it takes no descriptors
            self.refused.append(step)
            self._over = True
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
        finally:
            for fd in fds:
                os.close(fd)

    def _what_was_refused(self) -> tuple[bytes, list[int]]:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return (wire.name("s") if self._direction == TO_HELPER else wire.repl()), [null]

    def _hear(self, step: int, patience: float) -> bool:
        """Note what comes next; return whether the other side is still there."""
        try:
            packet = self._wire.receive(patience)
        except TimeoutError:
            return True
        self._kept += packet.fds
        if packet.data:
            self.heard[step] = heard(packet)
        return packet.data != b""


def _open_as_recorded(fd: RecordedFd) -> int:
    """Return a descriptor like a recorded one."""
    if "memfd" in fd:
        copy = os.memfd_create("fuse service argv")
        os.write(copy, bytes.fromhex(fd["memfd"]["hex"]))
        os.lseek(copy, 0, os.SEEK_SET)
        return copy
    return os.open(fd["link"], int(fd["f_getfl"], 8) & os.O_ACCMODE | os.O_CLOEXEC)


def subtype(transcript: Transcript) -> str:
    """Return the type that the recorded helper connected to."""
    words = transcript["helper_argv"]
    return words[words.index("-t") + 1].removeprefix("fuse.").removeprefix("fuseblk.")


def our_words(transcript: Transcript) -> list[str]:
    """Return the words for our helper: the recorded ones, and the dialect where no service is there to tell it by."""
    if transcript["helper"] == "mount.fuse3":
        return ["fuservicemount", "--as-mount-helper", *transcript["helper_argv"]]
    name, *words = transcript["helper_argv"]
    told = transcript["name"].startswith("draft-args") or transcript["name"] == "draft-x-upstream-server"
    return [name, *(["--dialect=draft"] if told and words else []), *words]


def _conversation(transcript: Transcript, listening: Listening) -> Wire:
    """Return the conversation to play. A draft service hangs up on the longer hello; our helper then asks once more."""
    conversation = listening.accept()
    if is_draft(transcript) and transcript["packets"][0]["len"] != len(conversation.peek()):
        assert conversation.receive().data == wire.saft()
        conversation.close()
        return listening.accept()
    return conversation


def against_helper(transcript: Transcript, *, waits: bool = False, command: list[str] | None = None) -> Outcome:
    """Play the recorded server against our mount helper, or against *command*."""
    user = transcript["uid"]
    mode = 0o666 if user and "0220" not in transcript["name"] else 0o220
    ours = command or helper_command(our_words(transcript))
    with Listening(stage.SOCKETS, subtype(transcript), mode) as listening:
        whole = [*caller(user, may_mount=user != 0), *ours]
        with Program(whole, cwd=transcript["cwd"], environment=transcript.get("env")) as program:
            half = Half(transcript, _conversation(transcript, listening), TO_HELPER, waits=waits)
            listening.close()  # this was the only service
            half.play()
            ended = program.ended()
        return _outcome(ended, half)


def against_service(transcript: Transcript) -> Outcome:
    """Play the recorded helper against a server on our library."""
    ours, theirs = wire.pair()
    with theirs:
        words, variables = _server_command(transcript)
        # The number of the socket and the pid of the server are only known to the server itself.
        start = f"import os; os.dup2({theirs.fileno()}, 3); {variables}; {SERVER}"
        program = Program([sys.executable, "-I", "-S", "-c", start, *words], pass_fds=[theirs.fileno()])
    with program:
        half = Half(transcript, ours, TO_SERVER)
        half.play()
        ended = program.ended()
    return Outcome(
        exit=ended.code,
        stderr=tuple(ended.lines),
        packets=half.heard,
        refused=tuple(half.refused),
        hung_up=half.hung_up,
    )


def _server_command(transcript: Transcript) -> tuple[list[str], str]:
    """Return the words of the recorded server, and Python that sets the variables it was started with."""
    words = transcript["server_argv"]
    pid, count = "os.getpid()", transcript.get("listen_fds", "1")
    if words[0] == "/usr/bin/env":
        if "-u" in words:
            return words[3:], "pass"
        pid = words[1].removeprefix("LISTEN_PID=")
        words = words[2:]
    return words, f"os.environ.update(LISTEN_FDS='{count}', LISTEN_PID=str({pid}))"


def without_a_server(transcript: Transcript, *, command: list[str] | None = None) -> Outcome:
    """Run our helper, or *command*, where nobody would answer it."""
    ours = command or helper_command(our_words(transcript))
    whole = [*caller(transcript["uid"], may_mount=False), *ours]
    with Program(whole, cwd=transcript["cwd"], environment=transcript.get("env")) as program:
        return _outcome(program.ended(), None)


def _outcome(ended: Ended, half: Half | None) -> Outcome:
    mounts = stage.mounts()
    candidates = ("created", "umnt/new")
    made = () if mounts else tuple(name for name in candidates if Path(stage.PLACE / name).exists())
    return Outcome(
        exit=ended.code,
        stderr=tuple(ended.lines),
        stdout=ended.stdout,
        packets=half.heard if half else {},
        refused=tuple(half.refused) if half else (),
        hung_up=half.hung_up if half else True,
        mounts=mounts,
        made=made,
        utab=Path(UTAB).read_text() if Path(UTAB).exists() else "",
    )
