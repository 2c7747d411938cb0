"""Golden packets of every malformed kind, and what each end makes of them."""

from __future__ import annotations

from typing import NamedTuple

from tests.packets.golden import Bad, wire

#: What the helper refuses with EINVAL, its sentence, and the packet that answers it.
REFUSED_REPLY = wire("5245504c  magic REPL", "00000016  errno: EINVAL")
REFUSED_FILE = wire("46494c45  magic FILE", "00000016  errno: EINVAL", "3f  ?", "00  NUL")


class Refused(NamedTuple):
    """A known command that is refused, and the packet that says so."""

    name: str
    packet: bytes
    sentence: str
    answer: bytes = REFUSED_REPLY


_OPEN = ("4f50454e  magic OPEN", "00000000  open flags", "00000000  create mode")
_BDEV = ("42444556  magic BDEV", "00000000  open flags", "00000000  create mode")

REFUSED = (
    Refused("open: magic alone", wire("4f50454e  OPEN"), "open command too small", REFUSED_FILE),
    Refused(
        "open: no path",
        wire(*_OPEN, "00000000  request flags", "00000000  block size", "00  NUL"),
        "open command too small",
        REFUSED_FILE,
    ),
    Refused(
        "open: no NUL",
        wire(*_OPEN, "00000000  request flags", "00000000  block size", "2f61  /a"),
        "open command must be null terminated",
        REFUSED_FILE,
    ),
    Refused(
        "open: NUL inside",
        wire(*_OPEN, "00000000  request flags", "00000000  block size", "2f006100  /, NUL, a, NUL"),
        "open command has a NUL at byte 1 of a string of 4 bytes",
        REFUSED_FILE,
    ),
    Refused(
        "open: unknown request flags",
        wire(*_OPEN, "00000006  request flags", "00000000  block size", "2f6100  /a"),
        "open flags 0x6 not recognized",
        wire("46494c45  FILE", "00000016  EINVAL", "2f6100  /a"),
    ),
    Refused(
        "bdev: no block size",
        wire(*_BDEV, "00000000  request flags", "2f00  /"),
        "open command too small",
        REFUSED_FILE,
    ),
    Refused("type: magic alone", wire("54595045  TYPE"), "fsopen command wrong size 4, expected 8"),
    Refused(
        "type: the draft's string",
        wire("54595045  TYPE", "667573652e7800  fuse.x"),
        "fsopen command wrong size 11, expected 8",
    ),
    Refused("type: unknown flags", wire("54595045  TYPE", "00000002  flags"), "unknown fsopen flags, 0x2"),
    Refused("name: magic alone", wire("4e414d45  NAME"), "mount source command too small"),
    Refused("name: empty", wire("4e414d45  NAME", "00  NUL"), "mount source command too small"),
    Refused("name: no NUL", wire("4e414d45  NAME", "6162  ab"), "mount source command must be null terminated"),
    Refused("mntp: no path", wire("4d4e5450  MNTP", "4000  S_IFDIR", "0000  padding"), "mount point command too small"),
    Refused(
        "mntp: padding",
        wire("4d4e5450  MNTP", "4000  S_IFDIR", "0001  padding", "2f00  /"),
        "nonzero value in padding field",
    ),
    Refused(
        "mntp: no NUL",
        wire("4d4e5450  MNTP", "4000  S_IFDIR", "0000  padding", "2f61  /a"),
        "mount point command must be null terminated",
    ),
    Refused("opts: empty", wire("4f505453  OPTS", "00  NUL"), "mount options command too small"),
    Refused("opts: no NUL", wire("4f505453  OPTS", "6162  ab"), "mount options command must be null terminated"),
    Refused("mtab: empty", wire("4d544142  MTAB", "00  NUL"), "mtab options command too small"),
    Refused("mtab: no NUL", wire("4d544142  MTAB", "6162  ab"), "mtab options command must be null terminated"),
    Refused("doit: magic alone", wire("444f4954  DOIT"), "mount command wrong size 4, expected 8"),
    Refused(
        "doit: long", wire("444f4954  DOIT", "00000000  flags", "00  more"), "mount command wrong size 9, expected 8"
    ),
    Refused("byee: magic alone", wire("42594545  BYEE"), "bye command wrong size 4, expected 8"),
    Refused(
        "byee: long",
        wire("42594545  BYEE", "00000000  code", "00000000  more"),
        "bye command wrong size 12, expected 8",
    ),
)

#: What ends the conversation on the helper's side, in READY.
ENDS = (
    Bad("end of file", b"", "fuse server exited without saying goodbye!"),
    Bad("three bytes", wire("444f49  DOI"), "wrong command packet size 3, expected at least 4"),
    Bad(
        "65,537 bytes",
        wire("4e414d45  NAME") + b"x" * 65_532 + b"\0",
        "wrong command packet size 65537, expected less than 65536",
    ),
    Bad("unknown magic", wire("21212121  !!!!", "00000000  anything"), "unrecognized packet 0x21212121"),
    Bad(
        "the helper's own hello",
        wire("53414654  SAFT", "00010001  versions", "00000000  flags"),
        "unrecognized packet 0x53414654",
    ),
    Bad("a reply", wire("5245504c  REPL", "00000000  errno"), "unrecognized packet 0x5245504c"),
    Bad(
        "little-endian", wire("54494f44  DOIT the wrong way round", "00000000  flags"), "unrecognized packet 0x54494f44"
    ),
)

#: Answers to hello that end the conversation on the helper's side.
HELLO_REPLIES = (
    Bad("end of file", b"", "wrong hello reply size 0, expected 8"),
    Bad("short", wire("4c415354  LAST", "0001  version"), "wrong hello reply size 6, expected 8"),
    Bad(
        "long",
        wire("4c415354  LAST", "0001  version", "0000  padding", "00000000  more"),
        "wrong hello reply size 12, expected 8",
    ),
    Bad(
        "magic", wire("4c415353  LASS", "0001  version", "0000  padding"), "ext4 service server did not reply to hello"
    ),
    Bad("version 0", wire("4c415354  LAST", "0000  version", "0000  padding"), "unsupported protocol version 0"),
    Bad("version 2", wire("4c415354  LAST", "0002  version", "0000  padding"), "unsupported protocol version 2"),
    Bad(
        "version before padding",
        wire("4c415354  LAST", "0002  version", "0001  padding"),
        "unsupported protocol version 2",
    ),
    Bad("padding", wire("4c415354  LAST", "0001  version", "0001  padding"), "nonzero value in padding field"),
)

#: Hellos that end the conversation on the service's side.
HELLOS = (
    Bad("end of file", b"", "wrong service hello size 0, expected 12"),
    Bad(
        "neither the draft's length nor ours",
        wire("53414654  SAFT", "00010001  versions", "0000  half the flags"),
        "wrong service hello size 10, expected 12",
    ),
    Bad(
        "the draft's length, another magic",
        wire("53414655  SAFU", "00010001  versions"),
        "service server did not send hello command",
    ),
    Bad(
        "long",
        wire("53414654  SAFT", "00010001  versions", "00000000  flags", "00  more"),
        "wrong service hello size 13, expected 12",
    ),
    Bad(
        "magic",
        wire("53414655  SAFU", "00010001  versions", "00000000  flags"),
        "service server did not send hello command",
    ),
    Bad(
        "oldest above newest",
        wire("53414654  SAFT", "0002  oldest", "0001  newest", "00000000  flags"),
        "min service protocol version 2 must be less than max 1",
    ),
    Bad(
        "too new",
        wire("53414654  SAFT", "0002  oldest", "0003  newest", "00000000  flags"),
        "min service protocol version 2 too new to support version 1",
    ),
    Bad(
        "too old",
        wire("53414654  SAFT", "0000  oldest", "0000  newest", "00000000  flags"),
        "max service protocol version 0 too old to support version 1",
    ),
)


class BadFile(NamedTuple):
    """A packet that should bring the file ``argv`` with one descriptor."""

    name: str
    packet: bytes
    descriptors: int
    sentence: str


_ARGV = wire("46494c45  FILE", "00000000  errno", "6172677600  argv")
FILES = (
    BadFile("end of file", b"", 0, "wrong service file reply size 0, expected 13"),
    BadFile(
        "no name",
        wire("46494c45  FILE", "00000000  errno", "00  NUL"),
        1,
        "wrong service file reply size 9, expected 13",
    ),
    BadFile(
        "magic",
        wire("46494c46  FILF", "00000000  errno", "6172677600  argv"),
        1,
        "expected a service file reply, got packet 46494c46",
    ),
    BadFile(
        "no NUL",
        wire("46494c45  FILE", "00000000  errno", "61726776  argv"),
        1,
        "service file reply must be null terminated",
    ),
    BadFile(
        "NUL inside",
        wire("46494c45  FILE", "00000000  errno", "6100677600  a, NUL, gv"),
        1,
        "service file reply has a NUL at byte 1 of a string of 5 bytes",
    ),
    BadFile(
        "another name",
        wire("46494c45  FILE", "00000000  errno", "6172677800  argx"),
        1,
        "`argv': not the requested service file, got `argx'",
    ),
    BadFile("no descriptor", _ARGV, 0, "did not receive valid fd for `argv' but no error? (got 0 descriptors)"),
    BadFile("two descriptors", _ARGV, 2, "did not receive valid fd for `argv' but no error? (got 2 descriptors)"),
    BadFile(
        "an error and a descriptor",
        wire("46494c45  FILE", "00000002  ENOENT", "6172677600  argv"),
        1,
        "did not receive valid fd for `argv' but error 2? (got 1 descriptors)",
    ),
    BadFile(
        "an error that is none",
        wire("46494c45  FILE", "00001000  4096", "6172677600  argv"),
        0,
        "service file reply says error 4096, expected 0..4095",
    ),
)


class BadReply(NamedTuple):
    """A packet that should answer a TYPE."""

    name: str
    packet: bytes
    descriptors: int
    sentence: str


REPLIES = (
    BadReply("end of file", b"", 0, "wrong service fsopen reply size 0, expected 8"),
    BadReply(
        "short", wire("5245504c  REPL", "0000  half an errno"), 0, "wrong service fsopen reply size 6, expected 8"
    ),
    BadReply(
        "long",
        wire("5245504c  REPL", "00000000  errno", "00  more"),
        0,
        "wrong service fsopen reply size 9, expected 8",
    ),
    BadReply("magic", wire("5245504d  REPM", "00000000  errno"), 0, "expected a service reply, got packet 5245504d"),
    BadReply(
        "a descriptor",
        wire("5245504c  REPL", "00000000  errno"),
        1,
        "service fsopen reply came with 1 descriptors, expected none",
    ),
    BadReply(
        "an error that is none",
        wire("5245504c  REPL", "ffffffff  -1"),
        0,
        "service reply says error 4294967295, expected 0..4095",
    ),
)
