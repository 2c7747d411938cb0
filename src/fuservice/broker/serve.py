"""One caller, in a process of his own: his request, judged; the mount; his answer.

A process of his own, since the kernel may wait for him: at the close of a file on a FUSE mount of his, at a stat(2) in one, at
a poll(2) of his fuse device if he asked for FUSE_DEV_IOC_SYNC_INIT. Then it is his own request that hangs, until it is killed.
"""

from __future__ import annotations

import errno
import os
import time

from fuservice.broker import judge, wire
from fuservice.broker.judge import Peer
from fuservice.errors import FuserviceError, PeerGoneError, RefusalError, RemoteProtocolError
from fuservice.helper import fuseconf
from fuservice.helper.attach import Plan, attach_by_descriptors
from fuservice.linux import mountapi, peers
from fuservice.linux.fdsockets import FdSeqPacket, TruncatedPacketError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.broker.policy import Policy
    from fuservice.helper.attach import Mount
    from fuservice.linux.fds import Fd

    Log = Callable[[int, str], None]

DEADLINE: Final = 10.0  # seconds for the whole conversation
INFORMATION, WARNING = 6, 4  # syslog(3)


def gone() -> RefusalError:
    """Return the refusal for a connection that nobody answers for."""
    return RefusalError(errno.ESRCH, "the process that connected has ended")


def identify(connection: FdSeqPacket) -> Peer:
    """Return who connected; RefusalError where that process has ended since."""
    who = connection.peer()
    try:
        groups = peers.groups(connection.fileno())
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raise RefusalError(errno.EPERM, "you are in over 256 groups: the broker cannot tell which") from None
    try:
        return Peer(who.uid, who.gid, groups, who.pid, peers.process(connection.fileno()))
    except ProcessLookupError:
        raise gone() from None


def serve(connection: FdSeqPacket, policy: Policy, log: Log, *, loud: bool = True) -> None:
    """Hold the conversation with whoever connected *connection*. Whatever is asked, it ends with an answer, or with the peer.

    Only if *loud* is a refusal logged.
    """
    connection.deadline = time.monotonic() + DEADLINE
    who = connection.peer()
    name = f"uid {who.uid}, pid {who.pid}"
    conversation: Conversation | None = None
    try:
        conversation = Conversation(connection, identify(connection), policy, log)
        conversation.run()
    except PeerGoneError as error:
        if loud:
            log(INFORMATION, f"{name}: {error}")
    except (FuserviceError, TruncatedPacketError) as error:
        sentence = "; ".join([str(error), *getattr(error, "details", ())])
        if loud:
            log(WARNING, f"{name}: refused: {sentence}")
        number = error.errno if isinstance(error, RefusalError) else errno.EPERM
        number = errno.EMSGSIZE if isinstance(error, TruncatedPacketError) else number
        _say(connection, wire.Answer(number, sentence=sentence))
    finally:
        if conversation is not None:
            conversation.close()


def _say(connection: FdSeqPacket, answer: wire.Answer) -> None:
    try:
        connection.send(answer.encode())
    except OSError:
        return  # nobody is there to be told


class Conversation:
    """What is open while one caller is served."""

    def __init__(self, connection: FdSeqPacket, peer: Peer, policy: Policy, log: Log) -> None:
        self._connection, self._peer, self._policy, self._log = connection, peer, policy, log
        self._open: list[Fd] = [] if peer.pidfd is None else [peer.pidfd]

    def close(self) -> None:
        """Close all that came, at last: only now could it make us wait for the peer."""
        for fd in self._open:
            fd.close()

    def _receive(self) -> tuple[bytes, list[Fd]]:
        """Return one packet, and its descriptors, which stay ours; PeerGoneError where there is none."""
        try:
            packet, fds = self._connection.receive_with_fds(wire.LARGEST)
        except TimeoutError:
            raise RefusalError(errno.ETIMEDOUT, f"nothing was said within {DEADLINE:.0f} s") from None
        except ConnectionResetError:
            packet, fds = b"", []
        self._open += fds
        if not packet and not fds:
            raise PeerGoneError("hung up")
        return packet, fds

    def _send(self, message: wire.Answer | wire.Challenge) -> None:
        try:
            self._connection.send(message.encode())
        except OSError as error:
            raise PeerGoneError(f"cannot be told: {error.strerror}") from None

    def run(self) -> None:
        """Do what is asked; FuserviceError, and nothing mounted or unmounted, where that is refused."""
        packet, fds = self._receive()
        request = wire.request(packet)
        if len(fds) != request.descriptors:
            raise RefusalError(errno.EPROTO, f"{len(fds)} descriptors came, {request.descriptors} were expected")
        if isinstance(request, wire.Unmount):  # which needs no rule: whoever may mount no more, may still tidy up
            self._unmount(request, fds[0])
            return
        rule = self._policy.rule(self._peer.uid, self._peer.gids)
        conf = fuseconf.read(lambda sentence: self._log(WARNING, sentence))
        device, place = fds[0].fileno(), judge.Place(fds[1].fileno())
        judge.check_device(device)
        options = judge.check_words(request, rule, conf)
        place.check(self._peer.uid)
        judge.check_number(self._peer.uid, rule, conf)
        if place.needs_proof(self._peer.uid):
            self._ask_for_proof(place)
        plan = Plan(
            fuse_device=fds[0], fuseblk=False, subtype=request.subtype, source=request.source or request.subtype or "fuse",
            flags=request.flags | judge.ALWAYS, options=options,
        )  # fmt: skip
        self._mount(plan, place, fds[1])

    def _ask_for_proof(self, place: judge.Place) -> None:
        word = f".fuservice-{os.urandom(16).hex()}"
        self._send(wire.Challenge(word))
        packet, fds = self._receive()
        if packet != wire.PROOF or len(fds) != 1:
            raise RefusalError(errno.EACCES, "you may not write to the mount point, and it is not yours")
        place.check_proof(fds[0].fileno(), word, self._peer.uid)

    def _mount(self, plan: Plan, place: judge.Place, place_fd: Fd) -> None:
        if self._peer.pidfd is not None and peers.has_ended(self._peer.pidfd):
            raise gone()
        options = plan.options | {  # ours come last, so they hold
            "fd": str(plan.fuse_device.fileno()), "rootmode": f"{place.kind:o}",
            "user_id": str(self._peer.uid), "group_id": str(self._peer.gid),
        }  # fmt: skip
        try:
            mount = attach_by_descriptors(plan, options, place_fd)
        except RefusalError as error:
            if error.errno == errno.EINVAL and not error.details:  # the kernel says no more than that
                error.details = ["was the fuse device opened in another user namespace?"]
            raise
        if mount is None:
            raise RefusalError(
                errno.ENOSYS, "this kernel's FUSE cannot be mounted by descriptors: Linux 5.7 or newer can"
            )
        with mount:
            try:
                self._hand_over(mount)
            except BaseException:
                mount.detach()
                raise
        shown = ",".join(["nosuid", "nodev", *plan.options])
        self._log(INFORMATION, f"uid {self._peer.uid}, pid {self._peer.pid}: mounted fuse.{plan.subtype} ({shown})")

    def _hand_over(self, mount: Mount) -> None:
        """Tell the peer, and wait until he has read it: whoever has ended by now would leave a mount behind."""
        self._send(wire.Answer(mount_id=judge.check_attached(mount.fileno(), self._peer.uid)))
        try:
            packet, fds = self._connection.receive_with_fds(wire.LARGEST)
        except OSError as error:  # reset: he has hung up without reading it
            raise PeerGoneError(f"ended before it was told of its mount: {error.strerror}") from None
        self._open += fds
        if packet:
            raise RemoteProtocolError("said something after its request")

    def _unmount(self, request: wire.Unmount, root: Fd) -> None:
        judge.check_unmount(root.fileno(), request.mount_id, self._peer.uid)
        try:
            mountapi.detach(root.fileno())
        except OSError as error:
            raise RefusalError.of("unmounting", error) from None
        self._log(INFORMATION, f"uid {self._peer.uid}, pid {self._peer.pid}: unmounted its mount {request.mount_id}")
        _say(self._connection, wire.Answer())
