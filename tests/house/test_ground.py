"""The ground itself: the conftest's gates and its count of what was left, tried on small runs that misbehave."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.capabilities import REPOSITORY
from tests.support.mounts import parse_mountinfo
from tests.support.waiting import wait_until


def run_pytest(where: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run *body* as a test file of its own, under our conftest."""
    script = where / "test_inner.py"
    script.write_text(textwrap.dedent(body))
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        where,
    ]
    settings: list[str | Path] = ["-c", REPOSITORY / "pyproject.toml", f"--basetemp={where / 'base'}"]
    return subprocess.run(
        [*command, *settings, *options, script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_leak_fails_the_test_that_made_it(tmp_path: Path) -> None:
    body = """
        import os, subprocess, threading, time
        from tests.support import leaks
        leaks.PATIENCE = 0.3

        def test_descriptor():
            os.dup(0)
        def test_child():
            subprocess.Popen(["sleep", "60"]).returncode = 0
        def test_orphan():
            subprocess.run(["sh", "-c", "sleep 61 >&- 2>&- <&- &"])
        def test_unreaped():
            os.fork() or os._exit(0)
        def test_thread():
            threading.Thread(target=time.sleep, args=(2,), name="lazy", daemon=True).start()
        def test_umask():
            os.umask(0)
        def test_directory(tmp_path):
            os.chdir(tmp_path)
        def test_innocent():
            subprocess.run(["true"])
    """
    said = run_pytest(tmp_path, body).stdout
    assert "8 passed, 7 errors" in said
    assert "descriptor " in said and ": sleep 60 (running)" in said and ": sleep 61 (running)" in said
    assert "(never waited for)" in said and "thread: lazy" in said
    assert "Umask: 0000, was 0022" in said and "directory: " in said


@pytest.mark.needs("root")
def test_a_mount_that_was_left_is_named_and_detached(tmp_path: Path) -> None:
    body = """
        from tests.support import kernel, mounts
        def test_leak(tmp_path):
            kernel.mount("none", str(tmp_path), "tmpfs")
        def test_next(tmp_path):
            assert not any("test_leak" in m.point for m in mounts.mounts())
    """
    done = run_pytest(tmp_path, body)
    assert "mount: tmpfs on" in done.stdout and "1 error" in done.stdout and "2 passed" in done.stdout


@pytest.mark.parametrize("where", ["marker", "option"])
def test_an_unknown_capability_is_an_error(tmp_path: Path, where: str) -> None:
    mark = "moon" if where == "marker" else "gcc"
    option = ["--must-have=root,moon"] if where == "option" else []
    done = run_pytest(tmp_path, f"import pytest\n@pytest.mark.needs({mark!r})\ndef test_it(): ...\n", *option)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no such capability: moon" in done.stdout + done.stderr


@pytest.mark.parametrize(("option", "outcome"), [("--must-have=", "1 skipped"), ("--must-have=gcc", "1 error")])
def test_must_have_turns_a_skip_into_a_failure(
    tmp_path: Path, option: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = run_pytest(tmp_path, "import pytest\n@pytest.mark.needs('gcc')\ndef test_it(): ...\n", option)
    assert outcome in done.stdout and "needs gcc: gcc not found" in done.stdout


@pytest.mark.needs("root", "fuse")
def test_a_hung_fuse_mount_is_aborted(tmp_path: Path) -> None:
    body = """
        import os, pytest
        from tests.support import kernel
        @pytest.mark.timeout(3)
        def test_hang(mount_point):
            fd = os.open("/dev/fuse", os.O_RDWR)
            options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
            kernel.mount("nobody answers", str(mount_point), "fuse", 0, options)
            try:
                os.listdir(mount_point)
            finally:
                os.close(fd)
    """
    done = run_pytest(tmp_path, body)
    assert "hung, aborted: fuse on" in done.stdout, done.stdout
    assert "mount: " not in done.stdout  # the fixture had detached it


def test_mountinfo_is_read_as_the_kernel_writes_it() -> None:
    text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/ro\\\\t rw,errors=continue\n"
    (only,) = parse_mountinfo(text)
    assert (only.mount_id, only.device, only.point) == (36, "98:0", "/mnt 2")
    assert (only.fstype, only.options, only.super_options) == ("ext3", "rw,noatime", "rw,errors=continue")


def test_the_run_lives_in_a_mount_namespace_of_its_own() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root moves")
    ours, parents = (Path(f"/proc/{pid}/ns/mnt").readlink() for pid in ("self", os.getppid()))
    assert ours != parents


def test_waiting_in_vain_names_what_was_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.01 s in vain: godot"):
        wait_until(lambda: False, "godot", seconds=0.01)
