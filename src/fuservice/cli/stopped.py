"""After a server in a unit that did not end well: ``python -I -m fuservice.cli.stopped TYPE INSTANCE``. Not for people.

systemd runs it with all rights, when none of the unit's processes is left: what it was mounted as is detached, so that its mount
point can be used again. Which mount that is the helper has written down.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from fuservice.cli import postmortem
from fuservice.cli.afterwards import tidy
from fuservice.cli.contained import Log
from fuservice.cli.list import recorded
from fuservice.errors import EXIT_OK, printable
from fuservice.launch.keeper import WARNING
from fuservice.linux import cgroup, mountinfo, namespaces
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def is_of(facts: Mapping[str, str], name: str, instance: str) -> bool:
    """Return whether the record *facts* is of a mount that *instance* of the template for *name* has served.

    It is N-PID-UID, where PID is the helper that had connected; a transient unit's has none.
    """
    helper = instance.split("-")[1:-1]
    whose = facts.get("helper") == helper[0] if helper else facts.get("socket") == "transient"
    return facts.get("type") == name and whose


def main() -> int:
    """Detach what is dead, and write down why; return the exit code."""
    _, name, instance = sys.argv
    with Fd(os.pidfd_open(1)) as first:
        namespaces.setns(first.fileno(), namespaces.CLONE_NEWNS)  # systemd has given us one of our own
    known = recorded()
    devices = {mount.device for mount in mountinfo.mounts() if is_of(known.get(mount.mount_id, {}), name, instance)}
    unit = cgroup.unit(os.getpid()) if devices else None
    how = postmortem.end_of(postmortem.SYSTEM, unit)[0] if unit else ""
    for device in devices:
        tidy(device, printable(how), partial(Log(), WARNING))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
