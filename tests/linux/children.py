"""Running a function in a forked child, which may give up its rights, and getting back what it says."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable, Mapping
from typing import TypeAlias

Said: TypeAlias = "str | int | bool | list[Said] | Mapping[str, Said] | None"


def in_child(function: Callable[[], Said], *, seconds: int = 20) -> Said:
    """Return what *function* returns in a forked child; AssertionError with its traceback where it raises.

    The child ends after *seconds* whatever happens: it must not outlive the test.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(writing, function, seconds)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with status {os.waitstatus_to_exitcode(status)}: {said.decode()}"
    answer: Said = json.loads(said)
    return answer


def _child(writing: int, function: Callable[[], Said], seconds: int) -> None:
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        os.write(writing, json.dumps(function()).encode())
        code = 0
    except BaseException:  # noqa: BLE001  # it goes to the parent, and we leave by _exit whatever it was
        os.write(writing, traceback.format_exc().encode())
    finally:
        os._exit(code)


def status() -> dict[str, str]:
    """Return /proc/self/status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123  # in a child, keep it plain
        lines = (line.partition(":") for line in file)
        return {key: value.strip() for key, _, value in lines}
