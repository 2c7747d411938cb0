"""A listener with services that are contained for real, and behave or misbehave as a test wants.

``python -m tests.launch.toys listen DIRECTORY [KEY=VALUE…]``, or ``warm …``, which the listener starts. Only what the servers do
in the cage is made for the tests.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from fuservice.cage.plan import HANDOVER_FD
from fuservice.drivers.memtree import MemtreeDriver
from fuservice.launch import keeper, warm
from fuservice.launch.activator import Activator
from fuservice.launch.child import DEBUG, Contained
from fuservice.launch.groups import Groups, delegated
from fuservice.launch.state import States
from fuservice.linux.notify import Manager
from fuservice.service import service as service_module
from fuservice.service import service_main
from tests.support.capabilities import REPOSITORY

SOCKET = 3
QUICK = 0.3  # seconds, in the place of the hello's deadline
PROGRAM = [
    sys.executable, "-c",
    f"import sys; sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / 'src')]}; from tests.launch.toys import main; main()",
]  # fmt: skip


def hold() -> int:
    """Serve for as long as the connection lives, like a mount."""
    os.write(SOCKET, b"serving")
    while os.read(SOCKET, 100):
        os.write(SOCKET, b"still")
    return 0


def environment() -> int:
    """Tell the environment."""
    os.write(SOCKET, json.dumps({**os.environ, "pid": os.getpid()}).encode())
    return 0


def closes() -> int:
    """Close the log, and go on."""
    os.close(1)
    os.close(2)
    return hold()


def talk() -> int:
    """Write lines that would like to be more than lines, and one without its end."""
    os.write(2, b"plain\nescape \x1b[31m and \xff\n\n" + b"long " * 1000 + b"\nlast words")
    return 0


def flood() -> int:
    """Write without an end of line for a while."""
    for _ in range(20):
        os.write(2, b"x" * 1000)
    return 0


def shout() -> int:
    """Write lines without end."""
    os.write(SOCKET, b"shouting")
    while True:
        os.write(2, b"ever the same\n" * 1000)


def states() -> int:
    """Tell states, of which some are none, and serve."""
    os.write(2, b"\x01status mountpoint=/mnt/a\\040b inflated=7\n\x01status bad key=1\n\x01status inflated=8\n")
    os.write(2, b"\x01status x=" + b"y" * 600 + b"\n\x01status esc=\x1b[m\nsaid afterwards\n")
    return hold()


def fails() -> int:
    """End badly."""
    return 3


def crashes() -> int:
    """End by a signal."""
    ctypes.string_at(0)
    return 0


def forbidden() -> int:
    """Try a system call that no server has."""
    with suppress(OSError):
        os.listdir("/")
    return hold()


def babbles() -> int:
    """Say to its supervisor what no server says."""
    os.write(HANDOVER_FD, b"x" * 1000)
    return hold()


def interrupts() -> int:
    """Try to be interrupted by signals: they would take a forbidden call back before anybody could look."""
    signal.setitimer(signal.ITIMER_REAL, 0.000_01, 0.000_01)
    return hold()


def raises() -> int:
    """Have a bug."""
    raise RuntimeError("a bug in a server")


def memtree() -> int:
    """Be a real server, in a hurry."""
    service_module.HELLO_TIMEOUT = QUICK  # type: ignore[misc]
    return service_main(MemtreeDriver, ["memtree"])


TOYS = (
    hold,
    environment,
    closes,
    talk,
    flood,
    shout,
    states,
    fails,
    crashes,
    forbidden,
    babbles,
    interrupts,
    raises,
    memtree,
)
SERVICES = {toy.__name__: toy for toy in TOYS}
#: Names of warm processes of their own: one that does not survive a fork, one that cannot be imported, and one that cannot
#: while flaw() exists.
COLD, BROKEN, FLAWED = "cold", "broken", "flawed"


def flaw(listener: int) -> Path:
    """Return the path of a file that says that the code of FLAWED on the disk is not good, to the listener of this pid."""
    return Path(tempfile.gettempdir(), f"fuservice-flaw-{listener}")


def load(name: str) -> Contained:
    """Do what cli/warm.py does for drivers."""
    if name == BROKEN or (name == FLAWED and flaw(os.getppid()).exists()):
        raise RuntimeError("cannot be imported")
    if name == COLD:
        from tests.launch import fragile

        return Contained(lambda _: fragile.serve(), warm=False)
    if name == FLAWED:
        return Contained(lambda _: hold(), syscalls=("read",))
    return Contained(lambda asked: SERVICES[asked](), syscalls=("read",))


def listen(directory: str, *words: str) -> None:
    """Listen in *directory*, as *words* say: key=value."""
    options = dict(word.split("=") for word in words)
    without = [wall for wall in options.get("without", "").split(",") if wall]
    most = int(options.get("most", "0"))
    keeper.LONGEST_BIRTH = float(options.get("longest_birth", "60"))  # type: ignore[misc]
    if "debug" in options:
        os.environ[DEBUG] = "1"

    def command(name: str) -> list[str]:
        return [*PROGRAM, "warm", *warm.arguments(name, without, most)]

    programs = {name: command("toys") for name in SERVICES}
    programs |= {name: command(name) for name in options.get("more", "").split(",") if name}
    place = delegated()
    activator = Activator(
        programs, directory, log=lambda level, line: print(f"{level} {line}", file=sys.stderr, flush=True),
        states=States(f"{directory}-servers"), manager=Manager(os.environ), facts={"cage": "as typed"},
        per_uid=int(options.get("per_uid", "32")), groups=Groups(place) if place else None,
    )  # fmt: skip
    activator.run(lambda paths: print("ready", len(paths), flush=True))
    print("ended", flush=True)


def main() -> None:
    """Be the listener, or its warm process."""
    if sys.argv[1] == "listen":
        listen(*sys.argv[2:])
    else:
        warm.run(sys.argv[2:], load)


if __name__ == "__main__":
    main()
