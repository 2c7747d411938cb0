"""One server for one connection that somebody else has accepted: inetd, or a systemd socket with Accept=yes.

This process has imported the driver, clones the server, and stays to look after it: log, system calls, end.
"""

from __future__ import annotations

import os
import signal

from fuservice.cage.plan import clone_flags
from fuservice.launch.birth import Birth
from fuservice.launch.child import Contained, Starter, become_server
from fuservice.launch.loop import Loop
from fuservice.launch.server import Server, how_it_ended
from fuservice.linux.clone import clone
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from fuservice.launch.state import States
    from fuservice.linux.fdsockets import FdSeqPacket

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # each ends the server, and with him us


def serve_one(
    name: str, connection: FdSeqPacket, contained: Contained, *, without: Collection[str], facts: Mapping[str, str],
    states: States, log: Callable[[int, str], None],
) -> Server:  # fmt: skip
    """Serve type *name* over *connection*, which is ours now; return the server, which has ended. Blocks until then.

    SIGTERM ends the server, and us.
    """
    birth = Birth(name, connection.peer().uid, connection)
    birth.prepare()
    starter = Starter()
    pid = clone(clone_flags(contained.cage(starter, without)))
    if pid == 0:
        become_server(name, birth.descriptors(), lambda: contained, starter, without)
    loop, ended = Loop(), list[bool]()
    server = Server(birth, pid, loop, states, facts, log=log, entered=lambda: None)
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: server.kill())
    with Fd(os.pidfd_open(pid)) as pidfd:
        loop.watch(pidfd.fileno(), lambda: ended.append(True), order=1)
        while not ended:
            loop.turn()
        loop.forget(pidfd.fileno())
    for number in _SIGNALS:  # the pid is nobody else's only until the next line
        signal.signal(number, signal.SIG_IGN)
    server.bury(how_it_ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    return server
