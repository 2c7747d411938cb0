"""Golden packets of the draft dialect, where it differs: docs/protocol.md, "The draft dialect"."""

from __future__ import annotations

from fuservice.proto import dialects as d
from tests.packets.golden import Golden, wire

HELLO = wire("53414654  magic SAFT", "0001  oldest version", "0001  newest version")
HELLO_REPLY = wire("4c415354  magic LAST", "0001  version", "0000  two bytes that nobody reads")
HELLO_REPLY_UNSET = wire("4c415354  magic LAST", "0001  version", "beef  two bytes that nobody set")
OPEN = wire(
    "4f50454e  magic OPEN",
    "00000002  open flags: O_RDWR",
    "00000000  create mode",
    "00000000  request flags",
    "2f696d67  /img",
    "00        NUL",
)
SET_TYPE = wire("54595045  magic TYPE", "667573652e68656c6c6f  fuse.hello", "00  NUL")
SET_MOUNT_POINT = wire("4d4e5450  magic MNTP", "2f6d6e74  /mnt", "00  NUL")
SET_SOURCE_WITHOUT_NUL = wire("4e414d45  magic NAME", "696d67  img")

VALID = (
    Golden("hello", d.DraftHello(1, 1), HELLO),
    Golden("hello reply", d.DraftHelloReply(1), HELLO_REPLY),
    Golden("open", d.DraftOpen(b"/img", 2), OPEN),
    Golden("set type", d.DraftSetType(b"fuse.hello"), SET_TYPE),
    Golden("set mount point", d.DraftSetMountPoint(b"/mnt"), SET_MOUNT_POINT),
)
