"""Giving up rights, each in a forked child that is asked what is left."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from fuservice.linux import capabilities, prctl
from tests.linux.children import Said, in_child, status


def test_no_new_privileges_is_for_good() -> None:
    def child() -> Said:
        prctl.set_no_new_privs()
        return [status()["NoNewPrivs"], prctl.prctl(prctl.PR_GET_NO_NEW_PRIVS)]

    assert in_child(child) == ["1", 1]


def test_a_process_has_a_name_of_at_most_15_bytes() -> None:
    def child() -> Said:
        prctl.set_name("a name that is too long")
        return Path("/proc/self/comm").read_text()

    assert in_child(child) == "a name that is \n"


def test_an_error_says_which_call() -> None:
    with pytest.raises(OSError, match="Invalid argument") as error:
        prctl.prctl(prctl.PR_SET_PDEATHSIG, 9999)
    assert error.value.errno == errno.EINVAL and error.value.__notes__ == ["while calling prctl()"]


def test_the_death_of_the_parent_can_be_a_signal() -> None:
    def middle() -> Said:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            prctl.set_parent_death_signal(signal.SIGTERM)
            os.write(writing, b"ready")
            signal.alarm(10)
            signal.pause()
            os._exit(0)
        os.read(reading, 5)
        return child

    orphan = in_child(middle)
    assert isinstance(orphan, int)
    _, ended = os.waitpid(orphan, 0)  # this process adopts orphans: see tests/conftest.py
    assert os.waitstatus_to_exitcode(ended) == -signal.SIGTERM


def test_the_sets_are_those_of_proc() -> None:
    shown = status()
    assert capabilities.capabilities() == tuple(int(shown[name], 16) for name in ("CapEff", "CapPrm", "CapInh"))


@pytest.mark.needs("root")
def test_capabilities_are_dropped_and_do_not_come_back() -> None:
    def child() -> Said:
        effective, permitted, _ = capabilities.capabilities()
        high, low = 1 << 38, 1 << 7  # CAP_PERFMON lies in the second word, CAP_SETUID in the first
        capabilities.set_capabilities(low, low | high, 0)
        some = list(capabilities.capabilities()) == [low, low | high, 0]
        capabilities.set_capabilities(0, 0, 0)
        try:
            capabilities.set_capabilities(effective, permitted, 0)
        except PermissionError as error:
            return [some, list(capabilities.capabilities()), *error.__notes__]
        return None

    assert in_child(child) == [True, [0, 0, 0], "while calling capset()"]


@pytest.mark.needs("root")
def test_the_bounding_and_the_ambient_set_are_emptied() -> None:
    def child() -> Said:
        effective, permitted, _ = capabilities.capabilities()
        capabilities.set_capabilities(effective, permitted, permitted)
        prctl.prctl(capabilities.PR_CAP_AMBIENT, 2, 7)  # PR_CAP_AMBIENT_RAISE, CAP_SETUID
        before = status()["CapAmb"]
        capabilities.drop_bounding_set()
        capabilities.clear_ambient()
        return [before, status()["CapBnd"], status()["CapAmb"]]

    assert in_child(child) == ["0000000000000080", "0000000000000000", "0000000000000000"]


@pytest.mark.needs("root")
def test_a_process_that_is_not_dumpable_belongs_to_root() -> None:
    def child() -> Said:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        prctl.set_dumpable(1)
        open_to_us = Path("/proc/self/environ").stat().st_uid
        prctl.set_dumpable(0)
        return [open_to_us, Path("/proc/self/environ").stat().st_uid]

    assert in_child(child) == [65534, 0]
