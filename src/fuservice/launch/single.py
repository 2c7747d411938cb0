"""One server for one connection that somebody else has accepted: inetd, or a systemd socket with Accept=yes.

This process has imported the driver, clones the server, and stays to look after it: log, system calls, end.
"""

from __future__ import annotations

import os
import signal

from fuservice.cage.plan import clone_flags
from fuservice.launch.birth import Birth
from fuservice.launch.child import Contained, Starter, become_server
from fuservice.launch.keeper import WARNING
from fuservice.launch.loop import Loop
from fuservice.launch.server import Server, how_it_ended
from fuservice.linux.clone import clone
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from fuservice.launch.restart import Restart
    from fuservice.launch.state import States
    from fuservice.linux.fdsockets import FdSeqPacket

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # each ends the server, and with him us


def serve_one(
    name: str, connection: FdSeqPacket, contained: Contained, *, without: Collection[str], facts: Mapping[str, str],
    states: States, log: Callable[[int, str], None], restart: Restart | None = None,
) -> Server:  # fmt: skip
    """Serve type *name* over *connection*, which is ours now; return the server, which has ended. Blocks until then.

    SIGTERM ends the server, and us. With *restart*, another one may follow; the last one is returned.
    """

    def serve(connection: FdSeqPacket, contained: Contained, device: int | None = None) -> Server:
        return _serve(
            name,
            connection,
            contained,
            without=without,
            facts=facts,
            states=states,
            log=log,
            restart=restart,
            device=device,
        )

    server = serve(connection, contained)
    while restart is not None and (following := restart.successor(server)):
        log(WARNING, f"{name}[{server.pid}]: its mount lives: another server takes its place")
        server = serve(*following, os.dup(restart.device()))
    return server


def _serve(
    name: str, connection: FdSeqPacket, contained: Contained, *, without: Collection[str], facts: Mapping[str, str],
    states: States, log: Callable[[int, str], None], restart: Restart | None, device: int | None,
) -> Server:  # fmt: skip
    """Start one server, a successor if its *device* is known, and look after it to its end."""
    birth = Birth(name, connection.peer().uid, connection)
    birth.prepare()
    starter = Starter()
    pid = clone(clone_flags(contained.cage(starter, without)))
    if pid == 0:
        restarts = restart is not None and device is None
        become_server(name, birth.descriptors(), lambda: contained, starter, without, restarts=restarts)
    loop, ended = Loop(), list[bool]()
    server = Server(birth, pid, loop, states, facts, log=log, entered=lambda: None, restart=restart)
    if device is not None:
        server.watch(Fd(device))
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: server.end("its supervisor was told to end"))
    with Fd(os.pidfd_open(pid)) as pidfd:
        loop.watch(pidfd.fileno(), lambda: ended.append(True), order=1)
        while not ended:
            loop.turn()
        loop.forget(pidfd.fileno())
    for number in _SIGNALS:  # the pid is nobody else's only until the next line
        signal.signal(number, signal.SIG_IGN)
    server.bury(how_it_ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    return server
