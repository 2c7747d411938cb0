"""`make demo`: build an ext4 image, mount it through a server without rights, compare it with the kernel's own mount.

Everything happens in namespaces of its own, on a tmpfs that goes with them: whatever fails, and even if this process is
killed, the machine keeps no mount, no loop device, no process, and nothing but an empty directory under /tmp.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from demo.tree import make_image, plant
from fuservice.cage.credentials import FIRST_UID
from tests.support import kernel
from tests.support.capabilities import PROGRAMS, REPOSITORY
from tests.support.compare import Comparison, compare
from tests.support.mounts import detach_all, loop_mounted, mounted
from tests.support.processes import Program, servers, status
from tests.support.waiting import holds_within

ENTRIES_AT_LEAST = 500
ALSO = ("atime_ns", "ctime_ns", "blocks", "data", "ino")


class DemoError(Exception):
    """The demo cannot show what it wants to show; says what failed."""


#: Namespaces of mounts and of processes: a server and its mount keep each other alive, and this ends both. unshare(1).
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


def main(words: Sequence[str]) -> int:
    """Show it, in namespaces of our own; return 0 if everything was as it should be."""
    if os.geteuid() != 0:
        print("demo: mounting needs root: try  sudo make demo", file=sys.stderr)
        return 1
    if list(words) != ["apart"]:
        os.execvp(APART[0], [*APART, sys.executable, "-m", "demo", "apart"])
    os.umask(0o022)
    place = Path(tempfile.mkdtemp(prefix="fuservice-demo."))
    kernel.mount("demo", os.fspath(place), "tmpfs", data="mode=700")
    try:
        show(place)
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        print(f"demo: failed: {error}", file=sys.stderr)
        return 1
    finally:
        detach_all(place)
        place.rmdir()
    return 0


def show(place: Path) -> None:
    """Do all of it below the directory *place*."""
    tree, image, ours, kernels = (place / name for name in ("tree", "demo.img", "mnt", "kernel"))
    for directory in (tree, ours, kernels, place / "sockets"):
        directory.mkdir()
    step("a real tree, and an ext4 image of it")
    plant(tree)
    print(f"$ {make_image(tree, image)}")

    step("a server for ext4 images")
    listener = Program([PROGRAMS / "fuservice", "listen", "ext4", "--socket-dir", place / "sockets"], place / "log")
    try:
        await_socket(listener, place / "sockets/ext4")
        mount(image, ours, place / "sockets")
        proven = judge(image, ours, kernels, listener)
        unmount(ours)
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        raise DemoError(f"{error}\nthe listener said:\n{listener.said()}") from error
    finally:
        detach_all(ours)
        listener.stop()
    print(f"\ndemo: {proven}")


def await_socket(listener: Program, socket: Path) -> None:
    """Return when the listener is ready."""
    holds_within(20, lambda: socket.is_socket() or listener.ended())
    if not socket.is_socket():
        raise DemoError(f"the listener made no socket {socket}")
    print(listener.said().rstrip())


def mount(image: Path, at: Path, sockets: Path) -> None:
    """Mount through the helper, and show what is there."""
    step("the mount, through the helper")
    run(PROGRAMS / "fuservicemount", image, at, "-t", "ext4", "-o", "ro", f"--socket-dir={sockets}")
    found = mounted(at)
    if not found or not found.fstype.startswith("fuse"):
        raise DemoError(f"the helper said that it mounted, but {at} is {found}")
    run("findmnt", at)
    run("ls", "-lA", at)


def unmount(at: Path) -> None:
    """Unmount as anybody does."""
    step("the end")
    run("umount", at)
    if mounted(at):
        raise DemoError(f"{at} is still mounted after umount")


def judge(image: Path, ours: Path, kernels: Path, listener: Program) -> str:
    """Look at the server, compare our mount with the kernel's; return what is proven."""
    rights = judge_server(listener)
    step("the same image, mounted by the kernel, for comparison")
    with loop_mounted(image, kernels):
        run("findmnt", kernels)
        result = compare(ours, kernels, also=ALSO)
    if result.differences:
        shown = "\n  ".join(result.differences[:20])
        raise DemoError(f"{len(result.differences)} differences from the kernel's view:\n  {shown}")
    if result.entries < ENTRIES_AT_LEAST:
        raise DemoError(f"only {result.entries} entries were compared, {ENTRIES_AT_LEAST} are needed to prove anything")
    return sentence(result, rights)


def sentence(result: Comparison, rights: str) -> str:
    """Return what was proven, in one line."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(result.kinds.items()))
    return (
        f"{result.entries} entries ({kinds}; {result.bytes >> 20} MiB) of an ext4 image, served by a process with {rights}, "
        "are byte-equal to the kernel's own mount in sha256, mode, owner, times, size, blocks, holes, links, target and xattrs."
    )


def judge_server(listener: Program) -> str:
    """Find the process that parses the image; return which rights it has, and fail if it has any."""
    step("the process that parses the image")
    found = servers(listener.pid)
    if not found:
        raise DemoError(f"no process below the listener (pid {listener.pid}) serves the mount")
    for pid in found:
        facts = status(pid)
        for key in ("Name", "Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs"):
            print(f"{pid}: {key}: {facts.get(key, '?')}")
        own = str(FIRST_UID + int(facts["NSpid"].split()[0]))
        if int(facts["CapEff"], 16) or facts["NoNewPrivs"] != "1" or set(facts["Uid"].split()) != {own}:
            raise DemoError(f"the server (pid {pid}) has rights: {facts}")
    return "a uid of its own, no capability and no_new_privs"


def step(what: str) -> None:
    """Say what comes next."""
    print(f"\n== {what}", flush=True)


def run(*command: str | Path) -> None:
    """Run a command for all to see; its failure is the demo's."""
    words: Sequence[str] = [os.fspath(word) for word in command]
    typed = [os.path.relpath(w, REPOSITORY) if w.startswith(f"{REPOSITORY}/") else w for w in words]
    print(f"$ {shlex.join(typed)}", flush=True)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise DemoError(f"{Path(words[0]).name} ended with exit code {done.returncode}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
