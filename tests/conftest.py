"""The ground that every test stands on: gates, a mount namespace of our own, and a count of what was left.

* ``@pytest.mark.needs("root", "fuse", …)`` skips with the reason, or fails under ``--must-have`` (support/capabilities).
* As root, the whole run moves into a private mount namespace: no test can leave a mount on the machine, and when the
  last process of the run ends the kernel drops what was mounted.
* A test that leaves a descriptor, a child, a mount or a thread fails, by name. What it needs longer than itself it takes
  from a fixture of a wider scope.
* No tree is ever removed through a mount point. ``tmp_path`` could do that: with the retention policies "failed" and
  "none" it calls rmtree after each test, before we have looked for mounts. So pyproject.toml says "all", with which pytest
  only removes the directories of *earlier* runs; their mounts were made in namespaces that this run cannot see into, so
  there is nothing to descend into.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import capabilities, kernel
from tests.support.leaks import Snapshot, Watchdog, clean_up, what_is_left
from tests.support.mounts import CONNECTIONS, detach_all

WATCHDOG_MARGIN = 10.0
PRIVATE = pytest.StashKey[bool]()
MUST_HAVE = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare our options."""
    parser.addoption("--must-have", default="", metavar="A,B", help="capabilities whose absence fails, not skips")
    parser.addoption(
        "--corpus", metavar="DIR", help="compare these ext4 images (NAME.img, NAME.img.gz) with the kernel"
    )
    parser.addoption("--mutants", type=int, default=200, metavar="N", help="so many mutants of ext4 images (200)")


def pytest_configure(config: pytest.Config) -> None:
    """Judge --must-have, then move this process into a mount namespace of its own."""
    config.addinivalue_line("markers", "needs(*capabilities): skip unless this machine has them")
    try:
        config.stash[MUST_HAVE] = capabilities.names(config.getoption("--must-have"))
    except ValueError as error:
        raise pytest.UsageError(f"--must-have: {error}") from None
    config.stash[PRIVATE] = _enter_private_namespace()
    kernel.become_subreaper()


def _enter_private_namespace() -> bool:
    """Leave the machine's mount namespace if we may; return whether we did."""
    if os.geteuid() != 0:
        return False
    if threading.active_count() != 1:
        raise pytest.UsageError("a thread runs already: it would stay behind in the machine's mount namespace")
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    if CONNECTIONS.is_dir() and not os.path.ismount(CONNECTIONS):
        kernel.mount("fusectl", os.fspath(CONNECTIONS), "fusectl")
    return True


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what this machine has and lacks."""
    lacks = capabilities.missing()
    has = [name for name in capabilities.PROBES if name not in lacks]
    own = "of its own" if config.stash[PRIVATE] else "the machine's (not root)"
    lines = [f"mount namespace: {own}; capabilities: {', '.join(has)}"]
    return lines + [f"missing: {name}: {reason}" for name, reason in lacks.items()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a marker that names a capability nobody knows: a typing error would skip nothing."""
    for item in items:
        for mark in item.iter_markers("needs"):
            try:
                capabilities.names(",".join(mark.args))
            except ValueError as error:
                raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def pytest_collection_finish() -> None:
    """Put what collection made out of the collector's sight: each test is followed by gc.collect()."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Open or shut the gate, before any fixture is made."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if reason := capabilities.PROBES[name]():
                verdict = pytest.fail if name in item.config.stash[MUST_HAVE] else pytest.skip
                verdict(f"needs {name}: {reason}")


def _seconds_allowed(request: pytest.FixtureRequest) -> float:
    mark = request.node.get_closest_marker("timeout")
    if mark and (mark.args or "timeout" in mark.kwargs):
        return float(mark.args[0] if mark.args else mark.kwargs["timeout"])
    return float(request.config.getoption("timeout", None) or request.config.getini("timeout") or 0)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a descriptor, a child, a mount or a thread, or that hung in a FUSE mount.

    Autouse, so it is made before and ended after the test's own fixtures; fixtures of wider scope exist already when
    it first looks.
    """
    os.umask(0o022)  # whatever the caller's is, or a fixture of wider scope left
    before = Snapshot.take()
    allowed = _seconds_allowed(request)
    watchdog = Watchdog(before, max(allowed - WATCHDOG_MARGIN, allowed / 2)) if allowed else None
    if watchdog:
        watchdog.start()
    yield
    aborted = watchdog.stop() if watchdog else []
    left = what_is_left(before, own_mounts=request.config.stash[PRIVATE])
    if left:
        clean_up(before)
    complaints = [f"hung, aborted: {what}" for what in aborted] + left
    assert not complaints, "the test left behind:\n  " + "\n  ".join(complaints)


@pytest.fixture
def make_mount_point(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give a function that makes a directory to mount on; whatever is mounted there is detached at the end.

    The directories stay (empty, below tmp_path): nothing is removed that may hold a mount.
    """
    made: list[Path] = []

    def make(name: str = "mnt") -> Path:
        point = tmp_path / name
        point.mkdir()
        made.append(point)
        return point

    yield make
    for point in made:
        detach_all(point)
        with contextlib.suppress(OSError):
            point.rmdir()


@pytest.fixture
def mount_point(make_mount_point: Callable[[str], Path]) -> Path:
    """Give an empty directory to mount on; see make_mount_point."""
    return make_mount_point("mnt")
