"""What a replay came to, as plain lines: the recorded outcome, the one that just happened, and a difference stated in full."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tests.replay.transcripts import TO_HELPER, TO_SERVER, UNSEALED, UTAB, Transcript, is_draft, mount_line, said

#: Row "argv memfd unsealed": in every conversation ours has F_SEAL_SEAL, SHRINK, GROW and WRITE.
SEALED = 15
NOTHING = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All that is compared. ``packets``: step → what the program under test sent there; no entry: it sent nothing."""

    exit: int
    stderr: tuple[str, ...] = ()
    stdout: str = ""
    packets: Mapping[int, str] = dataclasses.field(default_factory=dict)
    #: Steps at which the kernel would not deliver what the scripted peer sent (EPERM).
    refused: tuple[int, ...] = ()
    #: The program under test was the one to hang up, or was hung up on; False: it waited for more.
    hung_up: bool = True
    mounts: tuple[str, ...] = ()
    #: Files that the program under test made.
    made: tuple[str, ...] = ()
    #: What mount(8) was asked to write down, in /run/mount/utab.
    utab: str = ""

    def against(self, expected: Outcome) -> list[str]:
        """Return a line for each thing that is not as *expected*."""
        lines = []
        for field in dataclasses.fields(self):
            got, wanted = getattr(self, field.name), getattr(expected, field.name)
            if field.name == "packets":
                lines += _packets(got, wanted)
            elif got != wanted:
                lines.append(f"{field.name}: expected {wanted!r}, got {got!r}")
        return lines


def _packets(got: Mapping[int, str], wanted: Mapping[int, str]) -> list[str]:
    steps = sorted({*got, *wanted})
    pairs = [(step, wanted.get(step, "nothing"), got.get(step, "nothing")) for step in steps]
    return [f"step {step}: expected {a}, got {b}" for step, a, b in pairs if a != b]


@dataclasses.dataclass(frozen=True)
class Difference:
    """An outcome that is other than the recorded one, on purpose: the row that says why, and what it is then.

    ``row`` is the row of PROTOCOL.md's table. What is None is as recorded. ``packets`` holds only the steps that differ;
    ``NOTHING`` for those at which ours sends nothing.
    """

    row: str
    exit: int | None = None
    stderr: tuple[str, ...] | None = None
    packets: Mapping[int, str | bytes] = dataclasses.field(default_factory=dict)
    refused: tuple[int, ...] = ()
    hung_up: bool = True
    mounts: tuple[str, ...] | None = None
    made: tuple[str, ...] | None = None

    def applied(self, recorded: Outcome) -> Outcome:
        """Return *recorded* with what differs put in."""
        packets = {**recorded.packets, **{n: str(line) if line else "" for n, line in self.packets.items()}}
        return dataclasses.replace(
            recorded,
            exit=recorded.exit if self.exit is None else self.exit,
            stderr=recorded.stderr if self.stderr is None else self.stderr,
            packets={n: line for n, line in packets.items() if line},
            refused=self.refused or recorded.refused,
            hung_up=self.hung_up,
            mounts=recorded.mounts if self.mounts is None else self.mounts,
            made=recorded.made if self.made is None else self.made,
        )


def recorded_helper(transcript: Transcript) -> Outcome:
    """Return what libfuse's helper did; where it was handed unsealed arguments, ours seals them (``SEALED``)."""
    return Outcome(
        exit=transcript["helper_exit"],
        stderr=tuple(transcript["helper_stderr"].splitlines()),
        stdout=transcript["helper_stdout"],
        packets={n: _sealed(line) for n, line in _lines(transcript, TO_SERVER).items()},
        refused=_undelivered(transcript),
        mounts=tuple(map(mount_line, transcript["mountinfo"])),
        made=FILES_MADE.get(transcript["name"], ()),
        utab="".join(post["out"] for post in transcript["post"] if post["cmd"] == f"cat {UTAB}"),
    )


#: What two recordings show with `ls`.
FILES_MADE = {"open-create": ("created",), "user-open-create": ("umnt/new",)}


def _undelivered(transcript: Transcript) -> tuple[int, ...]:
    return tuple(p["n"] for p in transcript.get("packets", []) if p.get("event", "").startswith("send error [Errno 1]"))


def _lines(transcript: Transcript, direction: str) -> dict[int, str]:
    packets = transcript.get("packets", [])
    # Said to a helper that was gone.
    lost = {p["n"] - 1 for p in packets if p.get("event", "").startswith("forward failed")}
    wanted = [p for p in packets if p["dir"] == direction and "hex" in p and p["n"] not in lost]
    return {p["n"]: _unset(said(p)) if is_draft(transcript) else said(p) for p in wanted}


def _unset(line: str) -> str:
    """Return *line* with zeros for the two bytes of a draft service's hello reply that nobody sets."""
    greeting = str(b"LAST\0\1")[:-1]
    return f"{greeting}\\x00\\x00'" if line.startswith(greeting) else line


def _sealed(line: str) -> str:
    return line.replace(f", seals {UNSEALED},", f", seals {SEALED},")


def recorded_service(transcript: Transcript) -> Outcome:
    """Return what a server on libfuse's library did."""
    before_the_session, _, _ = transcript["server_stderr"].partition("FUSE library version")  # where -d was typed
    return Outcome(
        exit=transcript["server_exit"],
        stderr=tuple(before_the_session.splitlines()),
        packets=_lines(transcript, TO_HELPER),
        refused=_undelivered(transcript),
    )
