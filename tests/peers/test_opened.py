"""What the helper opens while a hostile server talks to it, as strace(1) saw it: nothing but the pinned source."""

from __future__ import annotations

import compileall
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fuservice
from tests.peers import wire
from tests.peers.programs import helper_command

if TYPE_CHECKING:
    from tests.peers.stand import Stand, Step

pytestmark = pytest.mark.needs("root", "fuse", "strace")

CALLS = "open,openat,openat2,creat,open_by_handle_at,open_tree,link,linkat,symlink,symlinkat,rename,renameat,renameat2,"
CALLS += "unlink,unlinkat,mkdir,mkdirat,mknod,mknodat,chmod,fchmodat,chown,fchownat,truncate,mount,move_mount,fsopen,"
CALLS += "execve,connect,umount2"

#: What a helper may touch once it is connected.
ALLOWED = [
    r'openat\(AT_FDCWD, "/dev/fuse", O_RDWR\|O_CLOEXEC\)',
    r'openat\(AT_FDCWD, "/proc/self/fd/\d+", O_(RDONLY|RDWR)\|O_NOCTTY\|O_NONBLOCK\|O_CLOEXEC\)',
    r'openat\(AT_FDCWD, "POINT", O_RDONLY\|O_NOFOLLOW\|O_CLOEXEC\|O_PATH\)',
    r'fsopen\("fuse", FSOPEN_CLOEXEC\)',
    r'move_mount\(\d+, "", \d+, "", MOVE_MOUNT_F_EMPTY_PATH\|MOVE_MOUNT_T_EMPTY_PATH\)',
    r'umount2\("/proc/self/fd/\d+", MNT_DETACH\)',
]


def touched(trace: Path, stand: Stand) -> list[str]:
    """Return the calls after the connection that no helper should make.

    When the conversation is over, it looks for who listened (cli/postmortem.py): it reads what the kernel says of processes.
    """
    lines = trace.read_text().splitlines()
    connected = next(n for n, line in enumerate(lines) if line.startswith("connect(") and f"{stand.sockets}/x" in line)
    allowed = re.compile("|".join(ALLOWED).replace("POINT", re.escape(str(stand.point))))
    calls = [line for line in lines[connected + 1 :] if "(" in line and not line.startswith(("---", "+++"))]
    # Python's own modules: those that are only needed now, and from where Python and we are installed.
    own = re.compile(r'openat\(AT_FDCWD, "[^"]*/(fuservice|python3[^/"]*)/[^"]*(\.pyc?|\.so|/)?", O_RDONLY\|')
    over = next((n for n, line in enumerate(calls) if "/postmortem." in line), len(calls))
    reads = re.compile(r'openat\(AT_FDCWD, "/proc(/\d+/(fd|cmdline)|/net/unix)?", O_RDONLY\|')
    return [
        line for n, line in enumerate(calls)
        if not allowed.match(line) and not own.match(line) and not (n > over and reads.match(line))
    ]  # fmt: skip


def hostile(stand: Stand) -> list[Step]:
    """Return a conversation that asks for everything that is not its own."""
    paths = ["/etc/shadow", str(stand.secret), "/proc/self/mem", "/dev/mem", str(stand.image) + "/.", "../secret"]
    asked = [(wire.open_(path, flags), wire.file(13, path)) for path in paths for flags in (os.O_RDONLY, os.O_CREAT)]
    names = ["/etc", str(stand.place), str(stand.image), "/"]
    return [
        *asked,
        (
            wire.open_(str(stand.image), os.O_CREAT | os.O_TRUNC | os.O_RDWR, mode=0o777),
            wire.file(13, str(stand.image)),
        ),
        (wire.open_(str(stand.image), os.O_RDWR), wire.file(0, str(stand.image))),
        *[(wire.mntp(name), wire.repl(22)) for name in names],
        (wire.opts(f"source={stand.secret}"), wire.repl(22)),
        (wire.mtab("X-mount.mkdir=/etc/evil"), wire.repl(22)),
        (wire.type_(), wire.repl()),
        (wire.name("/etc"), wire.repl()),
        (wire.mntp(stand.point), wire.repl()),
    ]


@pytest.mark.parametrize("end", ["mounted and gone", "MS_BIND"])
def test_nothing_is_opened_but_the_pinned_source(stand: Stand, end: str) -> None:
    trace = stand.place / "trace"
    strace = ["strace", "-f", "-qq", "-s", "300", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace), "--"]
    trace.touch()
    # Or the helper would write down how it has compiled what it imports.
    compileall.compile_dir(os.path.dirname(fuservice.__file__), quiet=2)  # noqa: PTH120
    with stand.conversation(command=[*strace, *helper_command(stand.words("--timeout=20"))]) as talk:
        talk.open().play(hostile(stand))
        if end == "mounted and gone":
            talk.play([(wire.doit(), wire.repl())])
            talk.hang_up()
        else:
            talk.play([(wire.doit(1 << 12), wire.repl(22))])
        assert talk.ended(20).code == 1
    # "-f" puts the process id first.
    trace.write_text(re.sub(r"(?m)^\d+ +", "", trace.read_text()))
    strange = touched(trace, stand)
    made = ['openat(AT_FDCWD, "/proc/self/fd/' in line for line in trace.read_text().splitlines()].count(True)
    trace.unlink()
    assert strange == []
    assert made == 1
