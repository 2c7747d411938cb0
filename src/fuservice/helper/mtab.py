"""/run/mount/utab: options that only userspace knows (``user=``, ``x-…``), written by mount(8) itself.

Only root's mounts get there, and only after success; failure is ignored, since the mount is there all the same.
"""

from __future__ import annotations

import os
import select

from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

UTAB: Final = "/run/mount/utab"
MTAB: Final = "/etc/mtab"
NOT_AT_ALL: Final = "-n"
PATIENCE: Final = 10  # seconds for mount(8)
SIGKILL: Final = 9  # the module signal costs an import of enum
#: mount(8) where distributions have it; never found by PATH, which is the caller's.
PROGRAMS: Final = ("/usr/bin/mount", "/bin/mount")


def record(source: str, mount_point: str, fstype: str, options: str) -> None:
    """Have *options* of a mount that is there written down; waits for mount(8), which mounts nothing (``-f``)."""
    if NOT_AT_ALL in options.split(",") or not os.access(UTAB, os.F_OK) or not os.access(MTAB, os.W_OK):
        return
    program = next((path for path in PROGRAMS if os.access(path, os.X_OK)), None)
    if program is None:
        return
    # Safe: fixed program and switches, no shell; "--" ends the options, and the words were checked as they came in.
    words = [program, "--no-canonicalize", "-i", "-f", "-t", fstype, "-o", options, "--", source, mount_point]
    try:
        null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
        pid = os.posix_spawn(program, words, {"LANG": "C", "PATH": "/usr/bin:/bin"}, file_actions=null)
    except OSError:
        return
    _wait(pid)


def _wait(pid: int) -> None:
    """Wait for our child *pid*, but not for ever: a path of its may lead into a mount that hangs."""
    with Fd(os.pidfd_open(pid)) as pidfd:
        ended = select.poll()
        ended.register(pidfd.fileno(), select.POLLIN)
        if not ended.poll(PATIENCE * 1000):
            os.kill(pid, SIGKILL)  # not reaped yet, so the number is still its own
        os.waitid(os.P_PIDFD, pidfd.fileno(), os.WEXITED)
