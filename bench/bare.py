"""What an activator costs at least: accept, fork, serve, and no cage at all. Only to be measured against.

``python -m bench.bare SOCKET TYPE``: the driver is imported before the first connection, as `fuservice listen` does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from fuservice.drivers import catalog
from fuservice.service.main import service_main


def serve(connection: socket.socket, name: str) -> int:
    """Be the server of one connection; return the exit code."""
    os.dup2(connection.fileno(), 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    return service_main(catalog.find(name), [name])


def main() -> None:
    """Listen until somebody ends us."""
    path, name = sys.argv[1:]
    catalog.find(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(16)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                os._exit(serve(connection, name))
            connection.close()


if __name__ == "__main__":
    main()
