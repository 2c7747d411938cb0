"""What is fuzzed: each target takes any bytes, and raises only where something of ours is wrong.

A target catches what its parser documents and nothing else; where the bytes are accepted, it holds the result against what
the parser promises (a round trip, a bound, a set of allowed values).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress

from fuservice.cli import mount_fuservice
from fuservice.cli import records as reading
from fuservice.cli.commandline import CommandLine, CommandLineError
from fuservice.errors import LocalProtocolError, PolicyError, RefusalError, RemoteProtocolError, UsageError, printable
from fuservice.helper import fuseconf, manifest, record
from fuservice.helper.options import Options, check_kernel_options
from fuservice.linux import mountinfo
from fuservice.proto import argv, layouts, options
from fuservice.proto import messages as m
from fuservice.proto.connection import HelperConnection
from fuservice.proto.dialects import CURRENT, DRAFT
from fuservice.proto.service_connection import ServiceConnection
from fuservice.service.commandline import parse_cmdline_opts
from tests.fuzz import requests

Target = Callable[[bytes], None]

OWN_OPTIONS = ("offset", "x-own", "blksize")
KERNEL_OPTIONS = {"default_permissions", "allow_other", "max_read", "blksize"}
EVERY_MESSAGE = (*m.HELPER_SENDS, *m.SERVICE_SENDS, DRAFT.hello, DRAFT.hello_reply, *DRAFT.by_magic.values())
OPENING = 4  # messages before the first command


def steps(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut *data* into steps: a byte that says what to do, two that say with how many bytes, and these."""
    while len(data) > 2:
        kind, size = data[0], int.from_bytes(data[1:3], "big")
        yield kind, data[3 : 3 + size]
        data = data[3 + size :]


def helper_connection(data: bytes) -> None:
    """A hostile service: its answer to hello, then commands, each answered with what the step says."""
    dialect = DRAFT if data[:1] == b"d" else CURRENT
    connection = HelperConnection("x", dialect)
    connection.hello(3)
    hello, *commands = [*steps(data[1:])] or [(0, b"")]
    try:
        connection.receive_hello(hello[1])
    except RemoteProtocolError:
        return
    connection.give(layouts.ARGV_NAME)
    connection.give(layouts.FUSEDEV_NAME)
    for number, (errno, packet) in enumerate(commands, 1):
        try:
            command = connection.receive(packet)
        except RemoteProtocolError:
            return
        except RefusalError as refusal:
            answer = connection.answer(refusal.errno)
        else:
            if isinstance(command, m.Goodbye):
                return
            answer = connection.answer(errno)
        assert layouts.SMALLEST_PACKET < len(answer) <= layouts.LARGEST_PACKET
        assert number <= layouts.MOST_PACKETS


def service_connection(data: bytes) -> None:
    """A hostile helper: hello, argv, fusedev, then answers; the step says how many descriptors came with it."""
    connection = ServiceConnection()
    opening = [*steps(data)]
    try:
        connection.receive_hello(opening[0][1] if opening else b"")
        connection.reply()
        for name, (fds, packet) in zip((b"argv", b"fusedev"), opening[1:3], strict=False):
            connection.receive_given(name, packet, fds)
        for kind, packet in opening[3:]:
            with suppress(LocalProtocolError):  # a step of the script's that the table does not have: nothing is sent
                connection.command(_command(connection, kind >> 4))
            answer = connection.receive(packet, kind & 0x0F)
            assert isinstance(answer, m.File | m.Reply)
    except RemoteProtocolError:
        return


def _command(connection: ServiceConnection, number: int) -> m.Message:
    commands: tuple[m.Message, ...] = (
        m.Open(b"/img", 0), m.OpenBlockDevice(b"/dev/x", 0, block_size=512), connection.set_type("x", fuseblk=False), m.SetSource(b"s"),
        m.SetMountPoint(b"/mnt", layouts.S_IFDIR), m.SetOptions(b"max_read=1"), m.SetMtab(b"-n"), m.Mount(6), m.Goodbye(0),
    )  # fmt: skip
    return commands[number % len(commands)]


def messages(data: bytes) -> None:
    """Every message's decode(), whatever its magic says; what was read is written the same."""
    for kind in EVERY_MESSAGE:
        try:
            message = kind.decode(data)
            message.check()
        except RefusalError:
            continue
        packet = message.encode()
        assert kind.decode(packet) == message
        if kind in CURRENT.by_magic.values():
            assert packet[4:] == data[4:]


def argv_file(data: bytes) -> None:
    """The file of the caller's words, as a service reads it."""
    try:
        words = argv.decode(data)
    except RemoteProtocolError:
        return
    assert 1 <= len(words) <= argv.MOST_WORDS
    assert sum(map(len, words)) <= len(data)
    assert not any(b"\0" in word for word in words)
    assert argv.decode(argv.encode(words)) == words


def mount_options(data: bytes) -> None:
    """Options as text, the caller's and a server's; cut, escaped and cut again they are the same."""
    pairs = options.split(os.fsdecode(data))
    escaped = [options.join(*pair).replace("\\", "\\\\").replace(",", "\\,") for pair in pairs]
    assert options.split(",".join(escaped)) == pairs
    typed = Options()
    typed.add(os.fsdecode(data))
    assert not typed.restrictions & ~layouts.MS_ALLOWED
    for may_allow_other in (True, False):
        for fuseblk in (True, False):
            try:
                checked = check_kernel_options(data, typed, may_allow_other=may_allow_other, fuseblk=fuseblk)
            except RefusalError:
                continue
            for key, value in checked.items():
                assert key in KERNEL_OPTIONS
                assert value is None or value.isdecimal()
                assert key != "allow_other" or may_allow_other
                assert key != "blksize" or fuseblk


def command_lines(data: bytes) -> None:
    """The words of all three command lines: a server's, the helper's, and mount(8)'s."""
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    with suppress(UsageError):
        line = parse_cmdline_opts(["server", *words], OWN_OPTIONS)
        assert not line.flags & ~layouts.MS_ALLOWED
    with suppress(CommandLineError):
        request = CommandLine(["fuservicemount", *words])
        assert len(os.fsencode(request.socket_path)) <= layouts.LONGEST_SOCKET_PATH
        assert "/" not in request.subtype
        with suppress(UsageError):
            file = argv.encode(request.argv_words, request.typed)
            assert argv.decode(file) == request.argv_words
    theirs = mount_fuservice.Words(["mount.fuservice", *words])
    if len(theirs.positional) == 2:
        subtype, source = mount_fuservice.type_and_source(theirs.fstype, theirs.positional[0])
        helper = mount_fuservice.helper_words("mount.fuservice", theirs, subtype, source)
        assert all(isinstance(word, str) for word in helper)


def fuse_conf(data: bytes) -> None:
    """/etc/fuse.conf: each line sets something, or is complained of."""
    said: list[str] = []
    conf = fuseconf.parse(data, said.append)
    assert conf.mount_max >= fuseconf.NO_LIMIT
    assert len(said) <= data.count(b"\n") + 1


def manifests(data: bytes) -> None:
    """A driver's manifest."""
    try:
        found = manifest.parse(data.decode("utf-8", "replace"), "/etc/fuservice/manifests/x")
    except PolicyError:
        return
    assert all(rule.kind in manifest.KINDS for rule in found.rules.values())


def records(data: bytes) -> None:
    """A record of a mount, damaged or not."""
    for name, value in reading.parse(data).items():
        line = b"%b\t%b\n" % (os.fsencode(name), record._escape(os.fsencode(value)))  # as write() does
        assert reading.parse(line) == {name: value}


def mount_info(data: bytes) -> None:
    """A mountinfo file, and one in which these bytes are a mount's names, as the kernel escapes them."""
    for mount in mountinfo.parse(data):
        assert mount.mount_id >= 0 and mount.parent_id >= 0
        assert int(mount.device.partition(":")[2]) >= 0
    root, point, source = (*data.replace(b"\0", b"").split(b"\n", 2), b"", b"")[:3]
    fields = [_mangled(field) or b"/" for field in (root, point, source)]
    line = b"36 35 98:0 %b %b rw - fuse.x %b ro\n" % tuple(fields)
    (mount,) = mountinfo.parse(line)
    assert [mount.root, mount.mount_point, mount.source] == [os.fsdecode(f or b"/") for f in (root, point, source)]


def _mangled(name: bytes) -> bytes:
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in name)


def sentences(data: bytes) -> None:
    """What a stranger says, made safe for a terminal."""
    for text in (data, os.fsdecode(data), data.decode("utf-8", "replace"), data.decode("latin-1")):
        shown = printable(text)
        assert shown.isprintable() and len(shown) <= 201


#: Name → target, and the modules that its coverage is counted in.
TARGETS: dict[str, tuple[Target, tuple[str, ...]]] = {
    "helper": (helper_connection, ("proto.connection", "proto.messages", "proto.states", "proto.dialects")),
    "service": (service_connection, ("proto.service_connection", "proto.messages", "proto.states", "proto.dialects")),
    "messages": (messages, ("proto.messages", "proto.dialects")),
    "argv": (argv_file, ("proto.argv",)),
    "options": (mount_options, ("proto.options", "helper.options")),
    "commandlines": (command_lines, ("service.commandline", "cli.commandline", "cli.mount_fuservice")),
    "fuseconf": (fuse_conf, ("helper.fuseconf",)),
    "manifest": (manifests, ("helper.manifest",)),
    "record": (records, ("cli.records",)),
    "mountinfo": (mount_info, ("linux.mountinfo",)),
    "printable": (sentences, ("errors",)),
    "fuse": (requests.conversation, ("fuse.codec", "fuse.session", "fuse.operations")),
}


def run(name: str, data: bytes) -> None:
    """Try *data* on the target *name*; whatever this raises is a finding. A warning is one, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TARGETS[name][0](data)
