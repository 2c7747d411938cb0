"""The listener's side of a warm process: starts it, sends it connections, and replaces it when it is gone.

A connection is kept until its server itself has said that it was born: whatever dies before that, the connection is not lost.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from contextlib import suppress

from fuservice.launch import request
from fuservice.launch.child import DEBUG
from fuservice.launch.request import Message
from fuservice.launch.voice import Voice
from fuservice.linux.channel import Channel
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from fuservice.launch.birth import Birth
    from fuservice.launch.loop import Loop

CHANNEL_FD: Final = 3  # in the warm process
LANES: Final = 4  # servers that are made at the same time: a crowd must not keep the next user waiting
MOST_ATTEMPTS: Final = 2
LONGEST_BIRTH: Final = 60.0  # seconds, the import of the driver among them
CHANNELS: Final = -1  # in the order of a turn: who was born comes before who has died

ERROR: Final = 3
WARNING: Final = 4


class Keeper:
    """Keeps a warm process by *command* for the types *names*.

    *born* gets a birth and the pid of its server, *refused* one that will have none, and why. ``loading`` says whether the
    process is on its way to having imported its driver.
    """

    def __init__(
        self, names: Sequence[str], command: Sequence[str], loop: Loop, *, log: Callable[[int, str], None],
        born: Callable[[Birth, int], None], refused: Callable[[Birth, str], None], settled: Callable[[], None],
    ) -> None:  # fmt: skip
        """*settled* is called when ``loading`` is over, because it is done or because the process has ended."""
        self.names, self._command, self._loop, self._log = names, command, loop, log
        self._born, self._refused, self._settled = born, refused, settled
        self.loading = False
        self._queue: dict[int, deque[Birth]] = {}  # by who connected: they take turns
        self._unborn: dict[int, Birth] = {}  # sent, and not heard of yet
        self._number = 0
        self._entering = 0
        self._channel: Channel | None = None
        self._pid = 0
        self._voices: dict[int, Voice] = {}  # by pid: the process, and any before it that is not buried yet

    def __len__(self) -> int:
        """Return how many births are on their way."""
        return len(self._unborn) + sum(map(len, self._queue.values()))

    def add(self, birth: Birth) -> None:
        """Have a server made for *birth*, which is ours from now on."""
        self._queue.setdefault(birth.caller, deque()).append(birth)
        self.pump()

    def has_entered(self) -> None:
        """A server is in its cage, or dead: the next one may be made."""
        self._entering -= 1
        self.pump()

    def pump(self) -> None:
        """Send what can be sent."""
        while self._queue and len(self._unborn) + self._entering < LANES:
            birth = self._next()
            try:
                self._send(birth)
            except OSError as error:
                self._refused(birth, f"cannot start a server: {error.strerror}")

    def _next(self) -> Birth:
        caller, births = next(iter(self._queue.items()))
        del self._queue[caller]
        birth = births.popleft()
        if births:
            self._queue[caller] = births  # behind all others
        return birth

    def _send(self, birth: Birth) -> None:
        birth.prepare()
        channel = self._channel or self.start()
        self._number += 1
        kind = request.TRIAL if birth.trial else request.START
        packet = Message(kind, self._number, 0, birth.name).pack()
        birth.attempts, birth.since = birth.attempts + 1, time.monotonic()
        with suppress(ConnectionError):  # the end of file, which comes to hear(), says what to do about it
            channel.send(packet, birth.descriptors())
        self._unborn[self._number] = birth
        self._loop.tick(self._check)

    def start(self) -> Channel:
        """Start the warm process."""
        channel, theirs = Channel.pair()
        reading, writing = map(Fd, os.pipe2(os.O_CLOEXEC))
        with theirs, writing:
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, writing.fileno(), number) for number in (1, 2)),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CHANNEL_FD),
            ]
            # A session of its own: Ctrl-C is for the listener.
            words, environment = [*self._command, request.VERSION], {"LANG": "C.UTF-8"}
            environment |= {name: value for name, value in os.environ.items() if name == DEBUG}
            self._pid = os.posix_spawn(words[0], words, environment, file_actions=actions, setsid=True)
        label = f"{self.names[0]}: warm process {self._pid}"
        self._voices[self._pid] = Voice(
            self._loop, reading, lambda line: self._log(WARNING, f"{label}: {line}"), news=_no_news
        )
        self._channel, self.loading = channel, True
        self._loop.watch(channel.fileno(), self.hear, CHANNELS)
        return channel

    def hear(self) -> None:
        """Take what the warm process and new servers say, without blocking."""
        while self._channel is not None:
            try:
                packet = self._channel.receive(request.ROOM)
            except BlockingIOError:
                return
            if packet.data:
                self._take(Message.unpack(packet.data), packet.pid)
            else:
                self._lose()
                return

    def _take(self, message: Message, pid: int) -> None:
        if message.kind == request.READY:
            self.loading = False
            self._settled()
        elif message.number in self._unborn:
            birth = self._unborn.pop(message.number)
            if message.kind == request.BORN:
                self._entering += 1
                self._born(birth, pid)
            else:
                self._refused(birth, f"cannot start a server: {os.strerror(message.detail)}")

    def _lose(self) -> None:
        """Nobody is at the other end of the channel any more: who waited there waits for the next process."""
        assert self._channel is not None
        self._loop.forget(self._channel.fileno())
        self._channel.close()
        self._channel, self.loading, lost = None, False, [*self._unborn.values()]
        self._unborn.clear()
        for birth in lost:
            if birth.trial or birth.attempts >= MOST_ATTEMPTS:
                self._refused(birth, "cannot start a server: its warm process has ended")
            else:
                self._queue.setdefault(birth.caller, deque()).appendleft(birth)
        self._settled()
        self.pump()

    def _check(self, now: float) -> bool:
        """Do not wait for ever."""
        if any(now - birth.since > LONGEST_BIRTH for birth in self._unborn.values()):
            self._log(ERROR, f"{self.names[0]}: warm process {self._pid}: killed: silent for {LONGEST_BIRTH:.0f} s")
            self._kill()
            self._lose()
        return bool(self._unborn)

    def _kill(self) -> None:
        if self._pid in self._voices:  # not reaped, so the number is its own
            os.kill(self._pid, signal.SIGKILL)

    def reload(self) -> None:
        """Have the code loaded from the disk anew; ``loading`` until it is."""
        if self._channel is None:
            self.start()
        else:
            self.loading = True
            try:
                self._channel.send(Message(request.RELOAD).pack())
            except OSError:  # it is gone, or does not listen: the next one has the new code anyway
                self._kill()

    def bury(self, pid: int, how: str) -> bool:
        """Note that *pid* has ended, as *how* says; False where it was no warm process of ours."""
        voice = self._voices.pop(pid, None)
        if voice is None:
            return False
        voice.end()
        self._log(WARNING, f"{self.names[0]}: warm process {pid}: ended with {how}")
        return True

    def end(self) -> None:
        """End the warm process, and refuse who still waits."""
        for birth in [*self._unborn.values(), *(birth for births in self._queue.values() for birth in births)]:
            self._refused(birth, "the listener ends")
        self._unborn.clear()
        self._queue.clear()
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None
        self._kill()
        for pid, voice in self._voices.items():
            os.waitpid(pid, 0)
            voice.end()
        self._voices.clear()


def _no_news() -> None:
    """A warm process has nothing to say of itself."""
