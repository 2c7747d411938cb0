"""Golden packets: every message of the wire, byte by byte, with the field beside each.

They are written from docs/protocol.md and never made by the code under test. One line, one field: hexadecimal digits, two
blanks, what they are.
"""

from __future__ import annotations

from typing import NamedTuple

from fuservice.proto import messages as m


def wire(*fields: str) -> bytes:
    """Return the bytes of *fields*, each "HEX  what it is"."""
    return bytes.fromhex("".join(field.split("  ")[0] for field in fields))


class Golden(NamedTuple):
    """A message and its packet."""

    name: str
    message: m.Message
    packet: bytes


HELLO = wire(
    "53414654  magic SAFT",
    "0001      oldest version",
    "0001      newest version",
    "00000003  flags: allow_other and fuseblk possible",
)
HELLO_REPLY = wire(
    "4c415354  magic LAST",
    "0001      version",
    "0000      padding",
)
FILE_ARGV = wire(
    "46494c45  magic FILE",
    "00000000  errno: none, the descriptor is attached",
    "61726776  argv",
    "00        NUL",
)
FILE_FUSEDEV = wire(
    "46494c45  magic FILE",
    "00000000  errno",
    "66757365646576  fusedev",
    "00        NUL",
)
FILE_REFUSED = wire(
    "46494c45  magic FILE",
    "0000000d  errno: EACCES",
    "2f696d67  /img",
    "00        NUL",
)
OPEN = wire(
    "4f50454e  magic OPEN",
    "00080000  open flags: O_RDONLY|O_CLOEXEC",
    "00000180  create mode: 0600",
    "00000001  request flags: quiet",
    "00000000  block size",
    "2f696d67  /img",
    "00        NUL",
)
OPEN_BLOCK_DEVICE = wire(
    "42444556  magic BDEV",
    "00000002  open flags: O_RDWR",
    "00000000  create mode",
    "00000000  request flags",
    "00001000  block size: 4096",
    "2f64        /d",
    "00        NUL",
)
SET_TYPE = wire("54595045  magic TYPE", "00000000  flags: fuse")
SET_TYPE_BLOCK = wire("54595045  magic TYPE", "00000001  flags: fuseblk")
SET_SOURCE = wire("4e414d45  magic NAME", "696d67  img", "00  NUL")
SET_MOUNT_POINT = wire(
    "4d4e5450  magic MNTP",
    "4000      expected: S_IFDIR",
    "0000      padding",
    "2f6d6e74  /mnt",
    "00        NUL",
)
SET_OPTIONS = wire("4f505453  magic OPTS", "6d61785f726561643d31  max_read=1", "00  NUL")
SET_MTAB = wire("4d544142  magic MTAB", "757365723d62  user=b", "00  NUL")
MOUNT = wire("444f4954  magic DOIT", "00000006  MS_NOSUID|MS_NODEV")
GOODBYE = wire("42594545  magic BYEE", "00000001  exit code")
REPLY = wire("5245504c  magic REPL", "00000000  errno: none")
REPLY_BUSY = wire("5245504c  magic REPL", "00000010  errno: EBUSY")

VALID = (
    Golden("hello", m.Hello(1, 1, 3), HELLO),
    Golden("hello reply", m.HelloReply(1), HELLO_REPLY),
    Golden("file: argv", m.File(0, b"argv"), FILE_ARGV),
    Golden("file: fusedev", m.File(0, b"fusedev"), FILE_FUSEDEV),
    Golden("file: refused", m.File(13, b"/img"), FILE_REFUSED),
    Golden("open", m.Open(b"/img", 0o2000000, 0o600, 1, 0), OPEN),
    Golden("open block device", m.OpenBlockDevice(b"/d", 2, 0, 0, 4096), OPEN_BLOCK_DEVICE),
    Golden("set type", m.SetType(0), SET_TYPE),
    Golden("set type: fuseblk", m.SetType(1), SET_TYPE_BLOCK),
    Golden("set source", m.SetSource(b"img"), SET_SOURCE),
    Golden("set mount point", m.SetMountPoint(b"/mnt", 0o040000), SET_MOUNT_POINT),
    Golden("set options", m.SetOptions(b"max_read=1"), SET_OPTIONS),
    Golden("set mtab", m.SetMtab(b"user=b"), SET_MTAB),
    Golden("mount", m.Mount(6), MOUNT),
    Golden("goodbye", m.Goodbye(1), GOODBYE),
    Golden("reply", m.Reply(0), REPLY),
    Golden("reply: refused", m.Reply(16), REPLY_BUSY),
)

#: What a service may send, with the packet that answers it if all is well (None: nothing answers).
COMMANDS = (
    (OPEN, wire("46494c45  FILE", "00000000  errno", "2f696d6700  /img")),
    (OPEN_BLOCK_DEVICE, wire("46494c45  FILE", "00000000  errno", "2f6400  /d")),
    (SET_TYPE, REPLY),
    (SET_SOURCE, REPLY),
    (SET_MOUNT_POINT, REPLY),
    (SET_OPTIONS, REPLY),
    (SET_MTAB, REPLY),
    (MOUNT, REPLY),
    (GOODBYE, None),
)


# ---- the argv file ----

#: ``fuservicemount img /mnt -t ext4``: five words typed, of which three are told. The table has room for five.
ARGV_TYPED = wire(
    "41524753  magic ARGS",
    "00000003  argc",
    "00000030  argv[0] begins at 48 = 8 + 8 * 5",
    "00000005  argv[0] has 5 bytes with its NUL",
    "00000035  argv[1] begins at 53",
    "00000004  argv[1] has 4 bytes",
    "00000039  argv[2] begins at 57",
    "00000005  argv[2] has 5 bytes",
    "0000000000000000  room of the word -t",
    "0000000000000000  room of the word ext4",
    "65787434  ext4",
    "00        NUL",
    "696d67    img",
    "00        NUL",
    "2f6d6e74  /mnt",
    "00        NUL",
)
#: The same words without the room.
ARGV_COMPACT = wire(
    "41524753  magic ARGS",
    "00000003  argc",
    "00000020  argv[0] begins at 32 = 8 + 8 * 3",
    "00000005  argv[0] has 5 bytes with its NUL",
    "00000025  argv[1] begins at 37",
    "00000004  argv[1] has 4 bytes",
    "00000029  argv[2] begins at 41",
    "00000005  argv[2] has 5 bytes",
    "6578743400  ext4",
    "696d6700    img",
    "2f6d6e7400  /mnt",
)
ARGV_WORDS = [b"ext4", b"img", b"/mnt"]


class Bad(NamedTuple):
    """Bytes that are refused, and the sentence that says why."""

    name: str
    packet: bytes
    sentence: str


_ONE = ("41524753  magic", "00000001  argc")
ARGV_BAD = (
    Bad("empty", b"", "service args file has 0 bytes, expected at least 8"),
    Bad(
        "half a head",
        wire("41524753  magic", "0000  half of argc"),
        "service args file has 6 bytes, expected at least 8",
    ),
    Bad("other magic", wire("41524754  magic ARGT", "00000000  argc"), "service args file corrupt"),
    Bad(
        "no words",
        wire("41524753  magic", "00000000  argc"),
        "service args file of 8 bytes says argc 0, expected 1..1024",
    ),
    Bad(
        "more words than any file",
        wire("41524753  magic", "ffffffff  argc"),
        "service args file of 8 bytes says argc 4294967295, expected 1..1024",
    ),
    Bad(
        "a table cut short",
        wire("41524753  magic", "00000002  argc", "00000010  position", "00000001  length", "00  NUL"),
        "service args file of 17 bytes says argc 2, expected 1..1024",
    ),
    Bad(
        "a word beyond the end",
        wire(*_ONE, "00000010  position", "00000003  length", "61  a", "00  NUL"),
        "service args file argv[0]: 3 bytes at 16 are not in a file of 18",
    ),
    Bad(
        "a word after the end",
        wire(*_ONE, "00000100  position", "00000001  length", "00  NUL"),
        "service args file argv[0]: 1 bytes at 256 are not in a file of 17",
    ),
    Bad(
        "a word that wraps around",
        wire(*_ONE, "ffffffff  position", "00000002  length", "6100  a"),
        "service args file argv[0]: 2 bytes at 4294967295 are not in a file of 18",
    ),
    Bad(
        "a word in the table",
        wire(*_ONE, "00000008  position", "00000001  length", "00  NUL"),
        "service args file argv[0]: 1 bytes at 8 are not in a file of 17",
    ),
    Bad(
        "a word of no bytes, not even a NUL",
        wire(*_ONE, "00000010  position", "00000000  length", "00  NUL"),
        "service args file argv[0]: 0 bytes at 16 are not in a file of 17",
    ),
    Bad(
        "a word without its NUL",
        wire(*_ONE, "00000010  position", "00000002  length", "6162  ab"),
        "service args file argv[0]: expected one NUL, at byte 1",
    ),
    Bad(
        "a NUL inside a word",
        wire(*_ONE, "00000010  position", "00000003  length", "610000  a, NUL, NUL"),
        "service args file argv[0]: expected one NUL, at byte 2",
    ),
)
