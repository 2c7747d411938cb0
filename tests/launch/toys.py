"""A listener with services that tell what they were given, or misbehave: ``python -m tests.launch.toys DIRECTORY``.

The listener is the real one, and so is the cage; only what the servers do is made for the tests.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys

from fuservice.cage.plan import Profile, plan
from fuservice.drivers.memtree import MemtreeDriver
from fuservice.launch.activator import Activator
from fuservice.service import service as service_module
from fuservice.service import service_main

SOCKET = 3
QUICK = 0.3  # seconds, in the place of the hello's deadline


def tell() -> int:
    """Send what this process is, over its connection, as JSON."""
    fds = {}
    for number in range(os.sysconf("SC_OPEN_MAX")):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue
        fds[number] = os.readlink(f"/proc/self/fd/{number}").partition(":")[0]  # noqa: PTH115
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    handlers = [signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    said = {"fds": fds, "status": status, "environment": dict(os.environ), "pid": os.getpid(), "default": handlers}
    os.write(SOCKET, json.dumps(said).encode())
    return 0


def hold() -> int:
    """Serve for as long as the connection lives, like a mount."""
    os.write(SOCKET, b"serving")
    while os.read(SOCKET, 100):
        os.write(SOCKET, b"still")
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


def fails() -> int:
    """End badly."""
    return 3


def dies() -> int:
    """End by a signal."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def raises() -> int:
    """Have a bug."""
    raise RuntimeError("a bug in a server")


def memtree() -> int:
    """Be a real server, in a hurry."""
    service_module.HELLO_TIMEOUT = QUICK  # type: ignore[misc]
    return service_main(MemtreeDriver, ["memtree"])


SERVICES = {f.__name__: f for f in (tell, hold, closes, talk, flood, fails, dies, raises, memtree)}


def main() -> None:
    """Listen in the directory that was named."""
    activator = Activator(
        SERVICES, sys.argv[1], cage=plan(Profile()), log=lambda line: print(line, file=sys.stderr, flush=True)
    )
    activator.run(lambda paths: print("ready", len(paths), flush=True))
    print("ended", flush=True)


if __name__ == "__main__":
    main()
