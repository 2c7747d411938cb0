"""The two dialects that call themselves version 1: **current** (libfuse's main line) and **draft** (its patch of February 2026).

Only the length of the hello tells them apart. A dialect says which class reads and writes each message; the classes of the
draft are those of ``messages`` with another layout, and play the same roles in the table of states.
"""

from __future__ import annotations

import errno
import struct

from fuservice.errors import RefusalError
from fuservice.proto import layouts
from fuservice.proto import messages as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final


class DraftHello(m.Hello):
    """Helper → service: the versions it speaks. No flags."""

    role, layout, fixed = m.Hello, struct.Struct(">IHH"), ("oldest", "newest")


class DraftHelloReply(m.HelloReply):
    """Service → helper: the version that it chose. What follows it are two bytes that nobody set."""

    role, layout, fixed = m.HelloReply, struct.Struct(">IH2x"), ("version",)


class DraftOpen(m.Open):
    """Service → helper: open ``path``. No block size, and no request flags."""

    role, layout, fixed = m.Open, struct.Struct(">IIII"), ("flags", "mode", "request")
    lenient = True

    def check(self) -> None:
        if self.request:
            raise RefusalError(errno.EINVAL, f"open flags {self.request:#x} not recognized")


class DraftSetType(m.SetType):
    """Service → helper: the whole type as mountinfo will show it: "fuse", "fuse.SUBTYPE", "fuseblk.SUBTYPE"."""

    role, layout, fixed, text, title = m.SetType, layouts.MAGIC, (), "fstype", "fstype command"
    lenient, fields = True, ("fstype",)

    def __init__(self, fstype: bytes) -> None:
        super().__init__(flags=layouts.TYPE_FUSEBLK if fstype.partition(b".")[0] == b"fuseblk" else 0)
        self.fstype = fstype


class DraftSetSource(m.SetSource):
    """Service → helper: the source to show in mountinfo."""

    role, lenient = m.SetSource, True


class DraftSetMountPoint(m.SetMountPoint):
    """Service → helper: where. What it must be is not said."""

    role, layout, fixed = m.SetMountPoint, layouts.MAGIC, ()
    lenient = True


class DraftSetOptions(m.SetOptions):
    """Service → helper: options for the kernel's fuse."""

    role, lenient = m.SetOptions, True


class Dialect:
    """How one version of the wire is spelt, and the few manners that go with it."""

    def __init__(
        self, name: str, *, hello: type[m.Hello], hello_reply: type[m.HelloReply], commands: tuple[type[m.Message], ...],
        memfd_name: str, refusal_ends: bool, mount_errno: int, respecified: Mapping[type[m.Message], str],
    ) -> None:  # fmt: skip
        """``refusal_ends``: a refused command (a file apart) ends the conversation. ``mount_errno``: the answer to whatever the
        kernel says to a mount (0: what it says). ``respecified``: words for the second command of a kind.
        """
        self.name, self.hello, self.hello_reply = name, hello, hello_reply
        self.memfd_name, self.refusal_ends, self.respecified = memfd_name, refusal_ends, respecified
        self.mount_errno = mount_errno
        self.by_magic: Mapping[int, type[m.Message]] = {kind.magic: kind for kind in commands}


CURRENT: Final = Dialect(
    "current", hello=m.Hello, hello_reply=m.HelloReply, commands=m.COMMANDS, memfd_name="fuse service argv", refusal_ends=False,
    mount_errno=0,
    respecified={
        m.SetType: "fsopen command respecified", m.SetSource: "mount source respecified!",
        m.SetMountPoint: "mount point respecified!", m.SetOptions: "mount options respecified!",
        m.SetMtab: "mtab options respecified!",
    },
)  # fmt: skip

DRAFT: Final = Dialect(
    "draft", hello=DraftHello, hello_reply=DraftHelloReply,
    commands=(DraftOpen, DraftSetType, DraftSetSource, DraftSetMountPoint, DraftSetOptions, m.Mount, m.Goodbye),
    memfd_name="mount.service args", refusal_ends=True, mount_errno=errno.EINVAL,
    respecified={
        m.SetType: "fstype respecified!", m.SetSource: "source respecified!", m.SetMountPoint: "mount point respecified!",
        m.SetOptions: "mount options respecified!",
    },
)  # fmt: skip

DIALECTS: Final = (CURRENT, DRAFT)
