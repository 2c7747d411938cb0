"""Completion: the shells themselves complete with the scripts that are installed (tests/house has that these are new)."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuservice.cli.completion import script
from fuservice.cli.main import COMMANDS, main
from tests.support.capabilities import REPOSITORY

PLACE = REPOSITORY / "completions"
FILES = {"bash": PLACE / "fuservice.bash", "zsh": PLACE / "_fuservice", "fish": PLACE / "fuservice.fish"}
PATIENCE = 20.0


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 0
    assert capsys.readouterr().out == script("fish")


def in_bash(*words: str, cwd: Path) -> list[str]:
    """Return what bash's function offers for the last of *words*."""
    quoted = " ".join(map(shlex.quote, words))
    text = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _fuservice; printf "%s\\n" "${{COMPREPLY[@]}}"'
    command = ["bash", "--norc", "--noprofile", "-c", f". {FILES['bash']}; {text}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, start_new_session=True)
    assert done.stderr == ""
    return sorted(filter(None, done.stdout.split("\n")))


def test_bash_offers_what_fits(tmp_path: Path) -> None:
    (tmp_path / "a thing.img").touch()
    (tmp_path / "dir").mkdir()
    assert in_bash("fuservice", "", cwd=tmp_path) == sorted([*COMMANDS, "--help", "--version"])
    assert in_bash("fuservice", "un", cwd=tmp_path) == ["units"]
    assert in_bash("fuservice", "mount", "-t", "ext", cwd=tmp_path) == ["ext2", "ext3", "ext4"]
    assert in_bash("fuservice", "mount", "--via", "=", "b", cwd=tmp_path) == ["broker"]
    assert in_bash("fuservice", "mount", "--j", cwd=tmp_path) == ["--json"]
    assert in_bash("fuservice", "mount", "-v", "", cwd=tmp_path) == ["a thing.img", "dir"]
    assert in_bash("fuservice", "mount", "--timeout", "", cwd=tmp_path) == []
    assert in_bash("fuservice", "completion", "", cwd=tmp_path) == ["bash", "fish", "zsh"]


@contextlib.contextmanager
def terminal(*command: str, cwd: Path) -> Iterator[int]:
    """Run a shell on a terminal of its own; give our end of it."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": os.fspath(cwd), "TERM": "dumb", "PS1": "> "}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment, start_new_session=True
    )
    os.close(theirs)
    try:
        yield ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def expect(fd: int, text: str) -> None:
    """Read from the terminal until *text* has come."""
    seen, deadline = "", time.monotonic() + PATIENCE
    while text not in seen:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"waited in vain for {text!r}: {seen!r}"
        seen += os.read(fd, 65_536).decode(errors="replace")


def test_a_real_bash_completes_what_is_typed(tmp_path: Path) -> None:
    with terminal("bash", "--norc", "--noprofile", "-i", cwd=tmp_path) as fd:
        os.write(fd, f". {FILES['bash']}; echo re''ady\n".encode())
        expect(fd, "ready")
        os.write(fd, b"fuservice dri\t")
        expect(fd, "fuservice drivers")
        os.write(fd, b"\x15fuservice mount --via=fu\t")
        expect(fd, "--via=fusermount3")


@pytest.mark.needs("zsh")
def test_a_real_zsh_completes_what_is_typed(tmp_path: Path) -> None:
    (tmp_path / "thing.img").touch()
    with terminal("zsh", "-f", "-i", cwd=tmp_path) as fd:
        os.write(
            fd,
            f"fpath=({PLACE} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; echo re''ady\n".encode(),
        )
        expect(fd, "ready")
        os.write(fd, b"fuservice dri\t")
        expect(fd, "fuservice drivers")
        os.write(fd, b"\x15fuservice mount --via=fu\t")
        expect(fd, "--via=fusermount3")
        os.write(fd, b"\x15fuservice mount th\t")
        expect(fd, "thing.img")


@pytest.mark.needs("fish")
def test_a_real_fish_offers_what_fits(tmp_path: Path) -> None:
    (tmp_path / "thing.img").touch()

    def offers(line: str) -> set[str]:
        command = ["fish", "--no-config", "-c", f"source {FILES['fish']}; complete -C {shlex.quote(line)}"]
        environment = {"PATH": os.environ["PATH"], "HOME": os.fspath(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
        assert done.stderr == ""
        return {offer.split("\t")[0] for offer in done.stdout.splitlines()}

    assert offers("fuservice ") >= set(COMMANDS)
    assert offers("fuservice mount -t ") >= {"ext2", "ext3", "ext4", "memtree"}
    assert {"--json", "--rw"} <= offers("fuservice mount --")
    assert "thing.img" in offers("fuservice mount ")
    assert offers("fuservice completion ") == {"bash", "fish", "zsh"}
