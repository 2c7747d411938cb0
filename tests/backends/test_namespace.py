"""A mount in a namespace of one's own, where a user has nothing else: seen inside, unseen outside, and gone with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backends.conftest import in_checkout
from tests.support.capabilities import PROGRAMS
from tests.support.compare import compare_facts
from tests.support.mounts import mounted
from tests.support.user import UID, User, fresh_user
from tests.support.waiting import holds_within, wait_until

if TYPE_CHECKING:
    from tests.backends.conftest import Image
    from tests.support.compare import Facts

pytestmark = pytest.mark.needs("root", "fuse", "fusermount3", "userns", "e2fsprogs", "loop", "ext4", "nobody-python")

IMAGE_ENTRIES = 500  # at least
WHY_NOT = "from fuservice.backends.{} import {}; print({}().why_not())"
FIND = "import sys; from fuservice.backends.holder import find; held = find(sys.argv[1]); "
ENTER = FIND + "held.join(); import os; os.execvp(sys.argv[2], sys.argv[2:])"
UNMOUNT = FIND + "held.unmount(lazy='l' in sys.argv)"


@pytest.fixture
def user() -> Iterator[User]:
    """Give a fresh user who has no other way to mount."""
    with fresh_user(fusermount="plain") as made:
        yield made
        made.check_nothing_left()


def python(user: User, code: str, *words: str | Path) -> tuple[int, str, str]:
    """Run *code* as the user."""
    return user.run(PROGRAMS / "python", "-c", code, *words)


def private(user: User, image: Path, point: Path, *command: str | Path) -> tuple[int, str, str]:
    """Mount privately, and run *command*, or let it stay."""
    words = [image, point, "-t", "ext4", "-o", "ro,noexec,nosymfollow", *(["--", *command] if command else [])]
    return user.run(*in_checkout("-m", "tests.backends.driveprivate"), *words)


def held(user: User, image: Path, point: Path) -> int:
    """Mount privately, for longer; return the holder's pid."""
    code, said, errors = private(user, image, point)
    assert (code, errors) == (0, ""), errors
    return int(said.split()[0])


def without_owners(tree: dict[bytes, Facts]) -> dict[bytes, Facts]:
    """Return the facts without users and groups."""
    return {
        path: {key: value for key, value in entry.items() if key not in ("uid", "gid")} for path, entry in tree.items()
    }


def test_there_is_no_other_way(user: User) -> None:
    says = "root: this process has no CAP_SYS_ADMIN (it is not root's); fusermount3: /usr/bin/fusermount3 is not set-user-ID root"
    code, _, errors = python(user, "from fuservice.backends.choose import choose; choose()")
    assert code == 1 and says in errors, errors


def test_a_user_reads_all_that_the_kernel_shows(user: User, image: Image) -> None:
    """But for owners: nobody else exists in there."""
    point = user.make("mnt")
    held(user, image.path, point)
    assert mounted(point) is None
    facts = user.facts(point, PROGRAMS / "python", "-c", ENTER, point)
    result = compare_facts(without_owners(facts), without_owners(image.facts))
    assert not result.differences, "\n".join(result.differences[:30])
    assert result.entries > IMAGE_ENTRIES
    assert python(user, UNMOUNT, point) == (0, "", "")
    assert not user.processes()
    assert not point.exists()


def test_who_is_in_there_is_the_same_user_without_any_rights(user: User, image: Image) -> None:
    point = user.make("mnt")
    show = f"id -u; id -g; pwd; cat /proc/self/status; cat /proc/self/uid_map; grep {point} /proc/self/mountinfo; umount {point}"
    code, said, errors = private(user, image.path, point, "sh", "-c", show)
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert {status[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    lines = said.splitlines()
    assert lines[1:3] == [str(UID)] * 2
    assert f"{UID} {UID} 1" in [" ".join(line.split()) for line in lines]
    (mount,) = [line for line in lines if " fuse.ext4 " in line]
    assert f" {point} ro,nosuid,nodev,noexec,relatime,nosymfollow - fuse.ext4 {image.path} ro," in mount
    assert code and "must be superuser" in errors
    assert not point.exists()


def test_it_goes_with_the_command(user: User, image: Image) -> None:
    point = user.make("mnt")
    assert private(user, image.path, point, "sh", "-c", f"ls {point} | head -1; exit 7")[0] == 7
    assert not user.processes() and not point.exists()


def test_it_goes_with_whoever_started_it(user: User, image: Image) -> None:
    """Killed: nobody is left to tidy up but the holder."""
    point = user.make("mnt")
    words: list[str | Path] = [image.path, point, "-t", "ext4", "--", "sleep", "60"]
    started = user.start(*in_checkout("-m", "tests.backends.driveprivate"), *words)
    assert started.stdout
    started.stdout.readline()
    wait_until(lambda: "sleep" in user.processes().values(), "the command")
    started.kill()
    started.wait()
    wait_until(lambda: not point.exists(), "the end of the mount")
    (command,) = [pid for pid, name in user.processes().items() if name == "sleep"]
    assert f" {point} " not in Path(f"/proc/{command}/mountinfo").read_text()
    os.kill(command, signal.SIGKILL)
    started.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_it_goes_with_its_holder(user: User, image: Image, number: signal.Signals) -> None:
    point = user.make("mnt")
    os.kill(held(user, image.path, point), number)
    wait_until(lambda: not user.processes(), "the end of the server", 10)
    if number != signal.SIGKILL:
        assert not point.exists()


def test_a_server_that_dies_leaves_nothing(user: User, image: Image) -> None:
    point = user.make("mnt")
    held(user, image.path, point)
    (server,) = [pid for pid, name in user.processes().items() if name == "ext4"]
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not user.processes() and not point.exists(), "the end of the holder", 5)


def test_it_can_be_entered_again_and_again_until_it_is_unmounted(user: User, image: Image) -> None:
    point = user.make("mnt")
    holder = held(user, image.path, point)
    for _ in range(3):
        assert python(user, ENTER, point, "sh", "-c", f"test -d {point}/lost+found && pwd") == (0, f"{user.home}\n", "")
    busy = user.start(PROGRAMS / "python", "-c", ENTER, point, "sh", "-c", f"cd {point} && echo in && cat")
    assert busy.stdout and busy.stdout.readline() == "in\n"
    code, _, errors = python(user, UNMOUNT, point)
    assert code == 1 and f"{point}: busy: a process that has entered it uses it: end it, or use -l" in errors
    assert holds_within(1, lambda: holder in user.processes())
    assert python(user, UNMOUNT, point, "l") == (0, "", "")
    assert holder not in user.processes() and not point.exists()
    busy.communicate("")
    for what in (UNMOUNT, ENTER):
        assert f"{point}: no private mount of yours is there" in python(user, what, point, "true")[2]


def test_only_ones_own_are_found(user: User, image: Image) -> None:
    point = user.make("mnt")
    holder = held(user, image.path, point)
    code = "from fuservice.backends.holder import holders; print([(held.pid, held.mount_point) for held in holders()])"
    assert python(user, code)[1] == f"{[(holder, str(point))]}\n"
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", PROGRAMS / "python", "-c", code)
    assert subprocess.run(as_nobody, capture_output=True, text=True, check=True).stdout == "[]\n"
    os.kill(holder, signal.SIGTERM)


def test_what_the_server_says_reaches_the_caller_and_nothing_is_left(user: User) -> None:
    zeros, point = user.make("zeros", bytes(65536)), user.make("mnt")
    code, said, errors = private(user, zeros, point)
    assert code == 1 and not errors
    assert "said: ext4[" in said and "no ext2, ext3 or ext4 filesystem" in said
    assert said.endswith("error: fuse server failed mount, check dmesg/logs for details.\n")
    assert not user.processes() and not mounted(point)


def test_where_the_device_is_for_root_alone(image: Image) -> None:
    with fresh_user(fusermount="plain", device_mode=0o600) as user:
        code = WHY_NOT.format("namespace", "Namespace", "Namespace")
        assert python(user, code)[1] == "/dev/fuse cannot be opened: Permission denied\n"
        point = user.make("mnt")
        assert private(user, image.path, point)[1].endswith("error: /dev/fuse: Permission denied\n")


def test_where_user_namespaces_are_forbidden(user: User) -> None:
    """In a chroot the kernel makes none (user_namespaces(7))."""
    code = WHY_NOT.format("namespace", "Namespace", "Namespace")
    bind = f"mount --rbind / {user.place} && exec chroot --userspec={UID}:{UID} --groups= {user.place} "
    command: list[str | Path] = ["unshare", "-m", "sh", "-c", bind + '"$0" "$@"', PROGRAMS / "python", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "no user namespace can be made: Operation not permitted\n", done


def test_root_needs_no_user_namespace(image: Image, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    show = f"ls {point}; cat /proc/self/uid_map; grep CapEff /proc/self/status"
    drive = in_checkout("-m", "tests.backends.driveprivate")
    words: list[str | Path] = [*drive, image.path, point, "-t", "ext4", "--", "sh", "-c", show]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done
    assert "lost+found" in done.stdout and "4294967295" in done.stdout
    assert Path("/proc/self/status").read_text().split("CapEff:\t")[1].split()[0] in done.stdout
    assert not point.exists()
