"""A server's threads: each behind every wall, and none beside those that it was given."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuservice.cage.plan import Profile, plan
from fuservice.linux import threads
from tests.cage.caged import PLAIN, Caged

pytestmark = pytest.mark.needs("root", "userns")

COUNT = 3
starters = pytest.mark.parametrize("plain", [False, True], ids=["root", "plain"])


def profile(*, plain: bool) -> Profile:
    if not plain:
        return Profile(threads=COUNT, supervised=True)
    return Profile(uid=PLAIN.uid, gid=PLAIN.gid, user_namespace=True, threads=COUNT, supervised=True)


def in_a_thread(act: Callable[[], object]) -> None:
    """Have one of the spare threads do *act*, and return what comes of it as an exit code by *_exit*: ours blocks."""

    def run() -> None:
        code = 1
        try:
            code = int(act() or 0)  # type: ignore[call-overload]  # None is 0
        except BaseException as error:  # noqa: BLE001 - it is shown
            os.write(2, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(code)

    threads.take()[1](run)
    gate = _thread.allocate_lock()
    gate.acquire()
    gate.acquire()


@starters
def test_each_thread_stands_behind_the_walls(plain: bool) -> None:  # noqa: FBT001
    reading, writing = os.pipe()
    caged = Caged(lambda: os.readv(3, [bytearray(1)]), connection=reading, profile=profile(plain=plain))
    os.close(reading)
    tasks = Path(f"/proc/{caged.pid}/task")  # it has its filter: we have the listener
    assert len(list(tasks.iterdir())) == 1 + COUNT, caged.said()
    alike = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "NSpid")
    found = set()
    for task in tasks.iterdir():
        lines = (task / "status").read_text().splitlines()
        found.add("\n".join(line for line in lines if line.startswith(alike) and not line.startswith("NSpid")))
        assert os.listdir(task / "root") == []
    (shown,) = found  # they do not differ
    assert "CapEff:\t0000000000000000" in shown
    assert "NoNewPrivs:\t1" in shown
    assert "Seccomp:\t2" in shown
    os.close(writing)
    caged.kill()


@starters
@pytest.mark.parametrize(
    ("act", "call"),
    [
        (lambda: os.open("/", os.O_RDONLY), "openat"),
        (os.fork, "clone"),
        (lambda: os.kill(1, 0), "kill"),
    ],
    ids=["open", "fork", "kill"],
)
def test_what_is_forbidden_ends_it_whichever_thread_tries(plain: bool, act: Callable[[], object], call: str) -> None:  # noqa: FBT001
    caged = Caged(lambda: in_a_thread(act), profile=profile(plain=plain))
    assert caged.ended() == -signal.SIGKILL
    assert [violation.name for violation in caged.violations] == [call]


@starters
def test_no_thread_can_be_started_even_without_the_filter(plain: bool) -> None:  # noqa: FBT001
    def start() -> None:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            _thread.start_new_thread(int, ())

    caged = Caged(lambda: in_a_thread(start), profile=profile(plain=plain), without=["seccomp"])
    assert (caged.ended(), caged.said()) == (0, "")


EXHAUST = """
from tests.cage.caged import Caged
from tests.cage.test_threads import in_a_thread, profile

def exhaust():
    for size in (50_000, 1 << 20):
        pieces = []
        try:
            while True:
                pieces.append(bytes(size))
        except MemoryError:
            pieces.clear()
    return 7

caged = Caged(lambda: in_a_thread(exhaust), profile=profile(plain={plain}))
print(caged.ended(), caged.said(), [violation.name for violation in caged.violations])
"""


@starters
def test_memory_that_runs_out_is_an_exception_in_a_thread_too(plain: bool) -> None:  # noqa: FBT001
    """In a process that had no thread before, as those are that servers are cloned from: else malloc(3) has other heaps."""
    command = [sys.executable, "-c", EXHAUST.format(plain=plain)]
    done = subprocess.run(
        command, env={"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("7  []\n", "")


def test_the_plan_says_how_many_there_are() -> None:
    said = [operation.describe() for operation in plan(Profile(threads=COUNT))]
    line = f"start {COUNT} threads, to serve while others wait for the image: there can be no more"
    assert said.index(line) + 1 == said.index("limit NPROC to 0")
    assert "futex" in said[-1]
    assert "futex" not in plan(Profile())[-1].describe()
