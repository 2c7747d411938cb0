"""One source on its way to a mount, and the receipt of it: what was asked for, what was granted, what came of it."""

from __future__ import annotations

import os
import pwd
import re
import stat
import sys
import time
from contextlib import suppress
from functools import partial

from fuservice import __version__
from fuservice.cage.plan import WALLS
from fuservice.cli import made
from fuservice.cli.commandline import CommandLineError
from fuservice.drivers import catalog
from fuservice.errors import FuserviceError, ImageError, printable
from fuservice.helper.options import Options
from fuservice.launch import receipts
from fuservice.linux import mountinfo, statx
from fuservice.proto.options import SETS, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Final

    from fuservice.backends.backend import Backend
    from fuservice.cli.private import Private
    from fuservice.helper.attach import Mount, Plan
    from fuservice.helper.mountpoint import MountPoint
    from fuservice.linux.fds import Fd

_NO_REASON: Final = "fuse server failed mount, check dmesg/logs for details"
_LABEL: Final = re.compile(r"^[\w.+-]+\[\d+\]: ")  # which server a line of a log is of
#: What a mount is unless something else was typed (nosuid and nodev are the helper's own).
DEFAULTS: Final = "ro,noexec,nosymfollow"


class Attempt:
    """What is known of it so far; in the end, of the mount."""

    def __init__(self, source: str, typed: argparse.Namespace) -> None:
        self.source, self.typed, self.began = source, typed, time.time()
        self.mount_point, self.kind = "", ""
        self.receipt: int | None = None
        self._noting = False
        self.private: Private | None = None  # a mount that goes with us, unless it is told to stay
        self._backend: Backend | None = None
        self.made = False
        self._complaints: list[str] = []
        self._facts: receipts.Facts = {"boot": receipts.boot()}
        self._end: receipts.Facts = {}
        self._options = Options()
        for text in (DEFAULTS, *typed.options, *(["rw"] if typed.rw else [])):
            self._options.add(text)

    # ---- what was asked for ----

    @property
    def writable(self) -> bool:
        """Whether rw was typed, and not ro after it."""
        return not self._options.read_only

    def option_words(self) -> str:
        """Return all options as one word for ``-o``; the defaults come first, so what was typed after them holds."""
        return ",".join(
            join(name, value).replace("\\", "\\\\").replace(",", "\\,") for name, value in self._options.pairs
        )

    def offset(self) -> int:
        """Return where in the source the filesystem begins (bytes), as ``-o offset=`` says it."""
        text = self._options.value("offset") or "0"
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise CommandLineError(f"option offset={text}: expected a number of bytes")
        return int(text)

    # ---- what happens ----

    def tell(self, sentence: str) -> None:
        """Say what is done, if the caller wants to hear it."""
        if self.typed.verbose:
            print(printable(f"{self.source}: {sentence}", 1_000), file=sys.stderr, flush=True)

    def complain(self, sentence: str) -> None:
        """Take a complaint on the way: it is kept, and told once it is known what came of it."""
        self._complaints.append(sentence)

    def explain(self, error: FuserviceError) -> FuserviceError:
        """Return *error* with what our server has said of the image in the place of the protocol's words, which are none about it."""
        if not str(error).startswith(_NO_REASON):
            return error
        if self._complaints:
            *self._complaints, reason = self._complaints
            return ImageError(f"{self.source}: {_LABEL.sub('', reason)}")
        reason = str(error).removeprefix(_NO_REASON).lstrip(".:, ")
        reason = reason or f"the log of {self._facts.get('socket')} says why, and so does --direct"
        return ImageError(f"{self.source}: its server cannot serve it: {reason}")

    def complaints(self) -> list[str]:
        """Return what was complained of on the way."""
        return list(self._complaints)

    def grant(self, source: Fd) -> None:
        """Note what is granted. The helper pins the path once more by itself: see :meth:`attach`."""
        status = os.fstat(source.fileno())
        kind = "block" if stat.S_ISBLK(status.st_mode) else "file"
        size = os.lseek(source.fileno(), 0, os.SEEK_END)
        device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        self._identity = (status.st_dev, status.st_ino)
        self._facts["grants"] = [
            {"path": os.path.abspath(self.source), "kind": kind, "device": device, "inode": status.st_ino, "size": size,  # noqa: PTH100
             "access": "rw" if self.writable else "ro"}
        ]  # fmt: skip

    @property
    def backend(self) -> Backend | None:
        """Who attaches the mount, once that is known."""
        return self._backend

    def take_backend(self, backend: Backend) -> None:
        """Note who attaches the mount."""
        self._backend = backend
        self._facts["back end"] = backend.name
        self.tell(f"the back end {backend.name} attaches the mount")

    def served_by(self, socket: str | None) -> None:
        """Note who serves it: whoever listens at *socket*, or, without one, a server of our own, whose cage we know."""
        self._facts |= {"socket": socket, "cage": None if socket else list(WALLS)}
        self.tell(
            f"the service at {socket} is asked"
            if socket
            else f"a server of {self.kind} is started, in a cage of its own"
        )

    def served_by_systemd(self) -> None:
        """Note that systemd starts the server, behind walls of its own."""
        self._facts |= {"socket": None, "cage": None}
        self.tell(f"systemd starts a server of {self.kind}, for this mount alone")

    def keep(self) -> Callable[[str], None] | None:
        """Return what takes notes of what the server will say, for ``fuservice log``; the receipt gets its number now."""
        self.receipt, self._noting = receipts.reserve(), True
        return None if self.receipt is None else partial(receipts.note, self.receipt)

    def make(self, path: str) -> None:
        """Note the directory that was made for the mount."""
        self.mount_point, self.made = path, True

    def unmake(self) -> None:
        """Remove the directory that was made, now that nothing is mounted there."""
        if self.made:
            made.remove(self.mount_point)

    def attach(self, plan: Plan, mount_point: MountPoint) -> Mount:
        """Have the back end attach the mount; note what it has become. ``helper.mount.mount`` calls this."""
        assert self._backend is not None
        mount = self._backend.attach(plan, mount_point)
        flags = [name for name, flag in SETS.items() if plan.flags & flag]
        granted = [name for name in flags if name not in self._backend.lost] + [
            join(*pair) for pair in plan.options.items()
        ]
        self._facts |= {
            "mounted": round(time.time(), 3), "source": plan.source, "namespace": os.stat("/proc/self/ns/mnt").st_ino,  # noqa: PTH116
            "options": {"asked": [join(*pair) for pair in self._options.pairs], "granted": list(granted), "refused": list(self._backend.lost)},
        }  # fmt: skip
        self._facts |= _identity_of(mount)
        # The helper has pinned the source between our look and this one. If both saw the same file, so did it: whoever could
        # exchange the file twice in between can write to it as well.
        try:
            status = os.stat(self.source)  # noqa: PTH116
            same = (status.st_dev, status.st_ino) == self._identity
        except OSError:
            same = False
        if not same:
            self._facts["grants"] = None
        return mount

    def report(self) -> str:
        """Return what :meth:`attach` has noted, for :meth:`take_report` in another process."""
        import json

        return json.dumps([self._facts, self._backend.lost if self._backend else []])

    def take_report(self, text: str) -> None:
        """Take over what was noted in the process that has mounted."""
        import json

        self._facts, lost = json.loads(text)
        if self._backend is not None:
            self._backend.lost = lost

    # ---- what came of it ----

    def succeeded(self) -> int | None:
        """Write the receipt of a mount that is there; return its number. Tell what it has not of what was typed."""
        lost = self._backend.lost if self._backend is not None else []
        for name in lost:
            sentence = f"option {name}: {self._facts.get('back end')} does not know it: the mount is without"
            (self.complain if any(name in text.split(",") for text in self.typed.options) else self.tell)(sentence)
        self._end = {"ended": None, "reason": None}
        self.receipt = receipts.write(self._all() | self._end, self.receipt, noting=self._noting)
        self.tell(f"it is mounted on {self.mount_point}" + (f"; its number is {self.receipt}" if self.receipt else ""))
        return self.receipt

    def failed(self, error: FuserviceError) -> None:
        """Write the receipt of a refusal."""
        self._facts["mount id"] = None
        self._end = {
            "ended": round(time.time(), 3), "reason": str(error)[: receipts.LONGEST_REASON], "exit code": error.exit_code
        }  # fmt: skip
        self.receipt = receipts.write(self._all() | self._end, self.receipt)

    def _all(self) -> receipts.Facts:
        uid = os.getuid()
        driver = catalog.DRIVERS[self.kind][1].lower() if self.kind in catalog.DRIVERS else None
        return {
            "caller": {"uid": uid, "gid": os.getgid(), "name": _user_name(uid), "pid": os.getpid()}, "argv": list(sys.argv),
            "directory": _working_directory(), "path": os.path.abspath(self.source), "mount point": self.mount_point or None,  # noqa: PTH100
            "made": self.made, "type": self.kind or None, "driver": driver and {"name": driver, "version": __version__},
            "began": round(self.began, 3), "complaints": list(self._complaints), **self._facts,
        }  # fmt: skip

    def as_json(self) -> receipts.Facts:
        """Return what programs are told: the receipt's facts, even where no receipt could be written."""
        return {"id": self.receipt, **self._all(), **self._end}


def _identity_of(mount: Mount) -> receipts.Facts:
    """Return what finds the mount again: its unique id (None before Linux 6.8), and its filesystem's device as mountinfo has it."""
    facts: receipts.Facts = {"mount id": None, "device": None}
    with suppress(OSError):
        facts["mount id"] = statx.unique_id(mount.fileno())
    number = statx.mount_id(mount.fileno())
    device = next((there.device for there in mountinfo.mounts() if there.mount_id == number), None)
    return facts | {"device": device}


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return None
