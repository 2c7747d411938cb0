"""A real helper and a real service, joined by a socketpair, in conversations of any order: what comes back is what the model says.

The kernel is not asked: instead of attaching a mount, the helper's plan for it is written down.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from fuservice.cli.commandline import CommandLine
from fuservice.errors import FuserviceError, LocalProtocolError, PeerGoneError, RefusalError, RemoteProtocolError
from fuservice.helper import attach, mtab, record, session
from fuservice.helper.caller import Caller
from fuservice.helper.fuseconf import FuseConf
from fuservice.helper.grants import Grants
from fuservice.helper.manifest import SOURCE, Manifest, Rule
from fuservice.helper.mountpoint import MountPoint
from fuservice.linux import mountapi
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.proto import layouts
from fuservice.proto import messages as m
from fuservice.proto.dialects import CURRENT, DRAFT, Dialect
from fuservice.proto.service_connection import spell
from fuservice.service import Service
from tests.fuzz.model import KERNEL_OPTIONS, MALFORMED, MTAB_OPTIONS, SOURCES, TYPED, Model

if TYPE_CHECKING:
    from fuservice.helper.attach import Plan

flags_of_open = st.sampled_from(
    [os.O_RDONLY, os.O_RDWR, os.O_RDONLY | os.O_CLOEXEC, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_PATH, os.O_TRUNC]
)
#: A goodbye with this exit code; or a packet that is none of the protocol; or silence, and the end.
endings = st.sampled_from([0, 1, 2, 256, 0xFFFF_FFFF, b"", b"ABC", b"WHAT", b"SAFT" + bytes(8), bytes(8), b"BYE"])


class Kernel:
    """What the helper did to the kernel: nothing, but it is written down here."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.refusal = 0  # the errno of the next attempt to mount
        self.detached = self.closed = 0
        self.facts: Mapping[str, str] | None = None
        self.mtab: str | None = None

    def attach(self, plan: Plan, mount_point: MountPoint) -> Mount:
        """Stand in for helper.attach.attach()."""
        assert mount_point.fileno() >= 0
        if self.refusal:
            raise RefusalError(self.refusal)
        self.plans.append(plan)
        return Mount(self)

    def record(self, mount: int, facts: Mapping[str, str]) -> None:
        """Stand in for helper.record.write()."""
        assert mount >= 0
        self.facts = facts

    def record_mtab(self, _source: str, _place: str, _fstype: str, options: str) -> None:
        """Stand in for helper.mtab.record()."""
        self.mtab = options

    def detach(self, mount: int) -> None:
        """Stand in for linux.mountapi.detach()."""
        assert mount >= 0
        self.detached += 1


class Mount(attach.Mount):
    """The descriptor of a mount that is none; it counts that it is closed."""

    __slots__ = ("_kernel",)

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(os.open(os.devnull, os.O_PATH | os.O_CLOEXEC))
        self._kernel = kernel

    def close(self) -> None:
        self._kernel.closed += 1
        super().close()


class Helper(threading.Thread):
    """A session of the helper, in a thread, and how it ended."""

    def __init__(self, words: list[str], socket: FdSeqPacket, dialect: Dialect) -> None:
        super().__init__(name="helper")
        request = CommandLine(words)
        self.grants = Grants(request, Manifest({SOURCE: Rule("any", writable=True)}))
        self.mount_point = MountPoint(request.mount_point)
        self.said: list[str] = []
        self.error: BaseException | None = None
        self.session = session.Session(
            request, self.grants, self.mount_point, caller=Caller(FuseConf(), 0), socket=socket, say=self.said.append, dialect=dialect,
            attach=lambda plan, place: Conversation.kernel.attach(plan, place),
        )  # fmt: skip

    def run(self) -> None:
        try:
            self.session.run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the model judges it
            self.error = error
        finally:
            self.grants.close()
            self.mount_point.close()


class Conversation(RuleBasedStateMachine):
    """The service's steps, legal and illegal, through the library where it has them, and past it where it has not."""

    place: Path
    kernel: Kernel

    @initialize(
        typed=st.sampled_from(sorted(TYPED)), dialect=st.sampled_from([CURRENT, CURRENT, DRAFT]), ending=endings
    )
    def opening(self, typed: str, dialect: Dialect, ending: int | bytes) -> None:
        self.ending = ending
        self.image, self.point = os.fspath(self.place / "image"), os.fspath(self.place / "mnt")
        self.model = Model(self.image, typed, draft=dialect is DRAFT)
        Conversation.kernel = Kernel()
        ours, theirs = FdSeqPacket.pair()
        words = ["fuservicemount", self.image, self.point, "-t", "x", "--timeout=20", *(["-o", typed] if typed else [])]
        self.helper = Helper(words, theirs, dialect)
        self.helper.start()
        self.service, self.socket = Service(ours), ours
        assert self.service.args == ["x", *words[1:3], *words[6:]]
        assert self.service.can_allow_other() is self.service.can_fuseblk() is (dialect is CURRENT)

    # ---- asking ----

    def ask(self, command: m.Message, expected: int, *, quiet: bool = False) -> None:
        """Send *command*, through the service's own judgement if it lets it pass, and hold its answer against *expected*."""
        connection = self.service._connection  # its calls are one command each; this takes any
        command = spell(connection.dialect, command)
        try:
            packet = connection.command(command)
            legal = True
        except LocalProtocolError:
            packet, legal = command.encode(), False
            assert expected, f"the service does not say {command}, and the helper would say yes"
        self.socket.send(packet)
        answer, fds = self.service._receive()
        for fd in fds:
            fd.close()
        assert len(fds) == (isinstance(command, m.Open) and not expected)
        if isinstance(command, m.Open):
            assert answer == m.File(expected, command.path).encode()
        else:
            assert answer == m.Reply(expected).encode()
        if legal:
            assert connection.receive(answer, len(fds)).error == expected
        self.model.answered(command.role, expected, quiet=quiet)

    def going_on(self) -> bool:
        return not self.model.over

    @precondition(going_on)
    @rule(flags=flags_of_open, block=st.booleans(), quiet=st.booleans())
    def open_the_image(self, flags: int, block: bool, quiet: bool) -> None:  # noqa: FBT001
        kind = m.OpenBlockDevice if block and not self.model.draft else m.Open
        quiet = quiet and not self.model.draft
        command = kind(os.fsencode(self.image), flags, 0, int(quiet), 512)
        self.ask(command, self.model.open_image(flags, block=kind is m.OpenBlockDevice), quiet=quiet)

    @precondition(going_on)
    @rule(path=st.sampled_from(["/etc/passwd", "image", "{}/", "/proc/self/mem", "{}/../mnt"]))
    def open_something_else(self, path: str) -> None:
        command = m.Open(path.format(self.image).encode(), os.O_RDONLY)
        self.ask(command, self.model.in_order(m.Open) or errno.EACCES)

    @precondition(going_on)
    @rule(fuseblk=st.booleans())
    def begin(self, fuseblk: bool) -> None:  # noqa: FBT001
        expected = self.model.in_order(m.SetType)
        if not expected:
            self.model.fuseblk = fuseblk
        self.ask(self.service._connection.set_type("x", fuseblk=fuseblk), expected)

    @precondition(going_on)
    @rule(word=st.sampled_from(sorted(SOURCES)))
    def name_the_source(self, word: str) -> None:
        source = word.format(self.image)
        self.ask(m.SetSource(source.encode()), self.model.set_source(word, source))

    @precondition(going_on)
    @rule(word=st.sampled_from(["mnt", "mnt", "mnt", "image", "nowhere"]), kind=st.sampled_from(sorted(Model.KINDS)))
    def name_the_mount_point(self, word: str, kind: int) -> None:
        kind = 0 if self.model.draft else kind
        command = m.SetMountPoint(os.fsencode(self.place / word), kind)
        wrong = errno.EINVAL if word != "mnt" else Model.KINDS[kind]
        self.ask(command, self.model.in_order(m.SetMountPoint) or wrong)

    @precondition(going_on)
    @rule(text=st.sampled_from(sorted(KERNEL_OPTIONS)))
    def set_options(self, text: str) -> None:
        self.ask(m.SetOptions(text.encode()), self.model.set_options(text))

    @precondition(going_on)
    @rule(text=st.sampled_from(sorted(MTAB_OPTIONS)))
    def set_mtab(self, text: str) -> None:
        if not self.model.draft:
            self.ask(m.SetMtab(text.encode()), self.model.set_mtab(text))

    @precondition(going_on)
    @rule(
        flags=st.sampled_from([0, 6, 1, 2, 4, 8, 1 << 10, layouts.MS_ALLOWED]),
        refusal=st.sampled_from([0, 0, errno.EBUSY]),
    )
    def mount(self, flags: int, refusal: int) -> None:
        self.kernel.refusal = refusal
        self.ask(m.Mount(flags), self.model.mount(flags, refusal))

    @precondition(going_on)
    @rule(flags=st.sampled_from([4096, 32, 8192, 1 << 18, 1 << 31]))
    def mount_with_flags_that_do_more_than_restrict(self, flags: int) -> None:
        expected = self.model.mount(flags, 0)
        self.ask(m.Mount(flags), expected)
        if not self.model.over and self.model.ends_by(flags):
            self.model.over = RefusalError
            self.model.complaints -= 1  # it is how the helper ends, and said there

    @precondition(going_on)
    @rule(number=st.integers(0, len(MALFORMED) - 1))
    def say_something_malformed(self, number: int) -> None:
        packet, answer, kind = MALFORMED[number]
        if self.model.draft:
            return
        self.socket.send(packet)
        assert self.socket.receive(100) == answer
        self.model.answered(kind, errno.EINVAL)

    @precondition(going_on)
    @rule()
    def go_on_like_an_honest_service(self) -> None:
        """Take the next step towards the mount: by chance alone few conversations would get there."""
        done = self.model.done
        if m.SetType not in done:
            self.begin(False)  # noqa: FBT003
        elif m.SetSource not in done:
            self.name_the_source("plain")
        elif m.SetMountPoint not in done:
            self.name_the_mount_point("mnt", 0)
        else:
            self.mount(6, 0)

    # ---- the end ----

    @precondition(lambda self: self.model.over)
    @rule()
    def say_nothing(self) -> None:
        """It is over; hypothesis wants a step all the same."""

    def end(self) -> None:
        """Say goodbye, hang up, or talk nonsense, as this conversation was meant to end."""
        self.model.over = RemoteProtocolError
        if isinstance(self.ending, int):
            self.service.send_goodbye(self.ending)
            self.model.said_goodbye = True
        elif not self.ending:
            self.socket.shut_down()
            self.model.over = PeerGoneError
        else:
            self.socket.send(self.ending)
            assert self.socket.receive(100) == b""

    def teardown(self) -> None:
        if not hasattr(self, "helper"):
            return
        try:
            if self.going_on():
                self.end()
            self.helper.join(20)
        finally:
            self.service.destroy()
        assert not self.helper.is_alive()
        self.judge()

    def judge(self) -> None:
        """Hold how the helper ended, what it said and what it did against the model."""
        model, kernel = self.model, self.kernel
        assert len(self.helper.said) == min(model.complaints, 21), self.helper.said
        assert all(sentence.isprintable() and len(sentence) <= 201 for sentence in self.helper.said)
        assert len(kernel.plans) == kernel.closed == int(model.mounted)
        if model.mounted and model.said_goodbye:
            assert self.helper.error is None and kernel.detached == 0
            assert kernel.mtab == model.mtab and kernel.facts is not None
        else:
            assert model.over is not None and isinstance(self.helper.error, model.over), self.helper.error
            assert isinstance(self.helper.error, FuserviceError)
            assert kernel.detached == int(model.mounted) and kernel.facts is None
        for plan in kernel.plans:
            assert (plan.subtype, plan.source, plan.flags) == ("x", model.shown_source(), model.flags)
            assert (sorted(plan.options.items()), plan.fstype) == (model.options, "fuse")


@pytest.mark.needs("fuse", "root")
def test_conversations_of_any_order_go_as_the_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").write_bytes(bytes(4096))
    (tmp_path / "mnt").mkdir()
    monkeypatch.setattr(Conversation, "place", tmp_path, raising=False)
    monkeypatch.setattr(record, "write", lambda *words: Conversation.kernel.record(*words))
    monkeypatch.setattr(mountapi, "detach", lambda mount: Conversation.kernel.detach(mount))
    monkeypatch.setattr(mtab, "record", lambda *words: Conversation.kernel.record_mtab(*words))
    limits = settings(
        max_examples=250, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(Conversation, settings=limits)
